"""GPUs by their data sheets; and what is installed for one."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from hpjax.compiled import gpus
from hpjax.ops import memory, target
from hpjax.ops.compiler import compiler_options

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", gpus.GPUS)
def test_what_is_traced_for_a_gpu_knows_it(name):
    sheet = gpus.GPUS[name]
    with target.compiling_for(sheet.target):
        assert memory.device_name() == f"gpu {sheet.kind}"
        assert compiler_options() == {}
    assert target.backend() == "cpu" and memory.device_name().startswith("cpu ")


def test_a_gpu_that_is_here_excludes_what_gives_other_bits_each_time(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler_options() == {"xla_gpu_exclude_nondeterministic_ops": True}


def test_products_are_as_fast_as_their_operands_are_narrow():
    sheet = gpus.GPUS["h100"]
    assert sheet.flops("bf16") == sheet.flops(jnp.dtype("bfloat16").name) > 1.9 * sheet.flops("f32")


def test_a_gpus_installation_is_constrained():
    """The plugin is of jaxlib's version, libraries have one, and the README's command asks for them."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split())
    assert pins["jax-cuda13-plugin"] == pins["jax-cuda13-pjrt"] == pins["jaxlib"]
    assert {"nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-runtime", "nvidia-nccl-cu13", "triton"} <= set(
        pins
    )
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.search(r"pip install -c constraints.txt -e '.\[cuda\]'", readme)
