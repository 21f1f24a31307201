"""`python -m hpjax.export --workdir=DIR --out=FOLDER`: writes a trial's model for other programs."""

import sys
from collections.abc import Sequence

from hpjax.cli.options import naming_options, parse_options, parse_trial, run_with_help

HELP = """\
usage: python -m hpjax.export --workdir=DIR --out=FOLDER [--trial=best] [--model_file=FILE]

Writes the model of a trial, whose sweep may still run, into a folder of its own.

  --workdir=DIR      the sweep's folder; nothing in it is run or changed
  --out=FOLDER       a new or an empty folder
  --trial=best       the trial's number, or the one that ranks first
  --model_file=FILE  the Python file of a model of your own, as it was when the sweep began

The folder then holds model.safetensors (PyTorch's names), forward.jaxexport (jax.export, for any
model), model.onnx (of hpjax's own networks, with the extra onnx), model.json and README.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exports the trial that the command line names; returns the exit status (see `run_command`)."""
    argv = sys.argv if argv is None else argv
    return run_with_help(argv, HELP, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    defaults = {"workdir": ..., "out": ..., "trial": "best", "model_file": None}
    options, _ = parse_options(argv, defaults)
    trial = parse_trial("--trial", options["trial"])
    from hpjax.handover.package import export_trial  # only now: a wrong command line is answered without jax

    with naming_options(options):
        exported = export_trial(options["workdir"], trial, options["out"], options["model_file"])
    if exported.without_onnx:
        print(f"without model.onnx: {exported.without_onnx}")
    print(f"trial {exported.trial} is in {exported.folder}: {', '.join(exported.files)}")


if __name__ == "__main__":
    sys.exit(main())
