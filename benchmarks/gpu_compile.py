"""Compiles the standard workloads for a GPU that isn't there, and reads what it would run: nothing is timed.

    make gpu-compile                                     every row that has no result yet, for hours
    make gpu-compile ARGS="--rows=h200/resnet18.*x8"     those whose name the expression matches
    make gpu-compile ARGS="--rows=x8 --again"            those with a result too
    make gpu-compile ARGS="--rows=x8 --changed"          and those whose program has changed since

XLA's compiler for CUDA comes in a plugin that needs neither a GPU nor NVIDIA's libraries; `--plugin` names
its folder. Each row is kept as soon as it is there: an interrupted run continues where it was.
"""

import hashlib
import itertools
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import app, flags

HERE = pathlib.Path(__file__).parent
PLUGIN = flags.DEFINE_string(
    "plugin", os.environ.get("HPJAX_GPU_PLUGIN", ""), "folder of XLA's plugin for CUDA"
)
ROWS = flags.DEFINE_string("rows", "", "regular expression: the rows to compile, by GPU/WORKLOAD/PROGRAM")
AGAIN = flags.DEFINE_bool("again", False, "compile rows that have a result, too")
CHANGED = flags.DEFINE_bool("changed", False, "compile rows whose program isn't that of their result, too")
LIST = flags.DEFINE_bool("list", False, "only name the rows, and say which have a result")
OUT = flags.DEFINE_string("out", str(HERE / "results"), "folder with a folder per GPU")

OURS = ("train", "train_one", "evaluate", "admit", "copy")
PEERS = ("vmap", "lax_map", "unrolled")
LANES = (8, 1, 16, 32)


def main(argv: list[str]) -> None:
    """Compiles the rows that are wanted, one after the other."""
    del argv
    if PLUGIN.value and not LIST.value and os.path.realpath(PLUGIN.value) not in sys.path:
        _restart_with_plugin()
    for row in _rows():
        _compile_row(*row)


def _restart_with_plugin() -> None:
    """Starts this script again in a process that finds the plugin and computes on the CPU alone."""
    # As Python has it in its path, or it would be missed there again.
    paths = [
        os.path.realpath(PLUGIN.value),
        str(HERE.parent),
        *os.environ.get("PYTHONPATH", "").split(os.pathsep),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "JAX_PLATFORMS": "cpu"}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def _rows() -> Iterator[tuple]:
    """Yields GPU, workload and program of each row that is wanted, the most telling first."""
    from systems.gpu_programs import Work

    shapes = [
        *itertools.product(["resnet18"], [(150, 32)], ["bfloat16", "float32"]),
        *itertools.product(
            ["custom_cnn"], [(150, 32), (150, 450), (150, 10), (48, 10)], ["float32", "bfloat16"]
        ),
    ]
    for gpu, programs, lanes in itertools.product(("h200", "h100"), (OURS[:1], PEERS, OURS[1:]), LANES):
        for model, (size, batch), precision in shapes:
            work = Work(model, size, batch, lanes, precision)
            for program in programs:
                if re.search(ROWS.value, f"{gpu}/{work}/{program}"):
                    yield gpu, work, program


def _compile_row(gpu_name: str, work: Any, program: str) -> None:
    from hpjax.compiled.gpus import GPUS

    name, gpu = f"{gpu_name}/{work}/{program}", GPUS[gpu_name]
    path = pathlib.Path(OUT.value) / f"compiled_for_{gpu_name}" / f"{work}.json"
    known = _load(path, gpu, work)["rows"].get(program)
    if LIST.value:
        print(f"{'there  ' if known else 'missing'} {name}")
    elif not known or AGAIN.value or CHANGED.value:
        lowered, digest = _lower(gpu, work, program)
        if not known or AGAIN.value or known.get("program") != digest:
            row = {**_measure(gpu, work, lowered), "program": digest}
            result = _load(path, gpu, work)  # with what another process has written meanwhile
            result["rows"][program] = row
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: {json.dumps({**row, 'calls': '…'})}", flush=True)


def _load(path: pathlib.Path, gpu: Any, work: Any) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else _begin(gpu, work)


def _lower(gpu: Any, work: Any, program: str) -> tuple[Any, str]:
    """Returns a program as XLA is given it, and what tells it from others."""
    import jax
    from systems.gpu_programs import lower_program

    jax.clear_caches()
    lowered = lower_program(work, program, gpu)
    return lowered, hashlib.sha256(lowered.as_text().encode()).hexdigest()


def _begin(gpu: Any, work: Any) -> dict[str, Any]:
    from systems.provenance import describe_run

    return {**describe_run("gpu_compile", f"{gpu.kind}: compiled for it, not timed", vars(work)), "rows": {}}


def _measure(gpu: Any, work: Any, lowered: Any) -> dict[str, Any]:
    import jax

    from hpjax.compiled.kernels import read_step, summarize

    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return {"unavailable": str(error).splitlines()[0][:200]}
    analysis = compiled.memory_analysis()
    return {
        **summarize(read_step(compiled.as_text()), gpu, work.lanes),
        "temp_gb": analysis.temp_size_in_bytes / 1e9,
        "argument_gb": analysis.argument_size_in_bytes / 1e9,
        "compile_seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    app.run(main)
