"""What is compiled is counted, once, and kept for the next start."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from hpjax.ops.compiler import compile_seconds, remove_unused

COMPILE = """
import jax
from hpjax.ops.compiler import use_compilation_cache
use_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: x * 2 + 1)(3.0))
"""


def test_compile_time_is_counted_once():
    f = jax.jit(lambda x: jnp.sin(x) @ x.T)
    x = jnp.ones((7, 5))
    before = compile_seconds()
    f(x).block_until_ready()
    after = compile_seconds()
    f(x).block_until_ready()
    assert before < after == compile_seconds()


def test_programs_that_were_unused_longest_go_first(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}-cache").write_bytes(b"program" * 10)
        os.utime(tmp_path / f"{i}-cache", (100 - i, 50 - i))
    remove_unused(tmp_path, most=6 * 70)
    assert len(os.listdir(tmp_path)) == 6
    remove_unused(tmp_path, most=3 * 70 + 1)
    assert sorted(os.listdir(tmp_path)) == ["0-cache", "1-cache", "2-cache"]


def test_a_program_that_was_cut_off_is_compiled_without_a_word(tmp_path):
    environment = {**os.environ, "HPJAX_CACHE": str(tmp_path)}

    def compile_one():
        command = [sys.executable, "-W", "default", "-c", COMPILE]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.stdout == "7.0\n" and "cache" not in done.stderr, done.stderr

    compile_one()
    kept = list((tmp_path / "programs").glob("*-cache"))
    assert kept
    for file in kept:
        os.truncate(file, file.stat().st_size // 2)
    compile_one()
