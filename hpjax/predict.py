"""`python -m hpjax.predict --model=MODEL IMAGE|FOLDER…`: what a trained model sees in images."""

import sys
from collections.abc import Sequence

from hpjax.cli.options import check_choice, parse_options, run_with_help
from hpjax.errors import one_line

HELP = """\
usage: python -m hpjax.predict --model=MODEL IMAGE|FOLDER… [options]

Prints the most likely class of each image. In a folder with a folder per class it also says how often the
model is right, and what it takes for what.

  --model=MODEL        a folder that hpjax.export wrote, or WORKDIR[:TRIAL] (the best trial if none is named)
  --csv=FILE           writes all class probabilities there, a row per image
  --confusion=FILE     writes the confusion matrix there, as CSV
  --on_bad_image=fail  or skip: images that can't be read are left out and counted
  --batch_size=64      images that are computed at a time
  --model_file=FILE    the Python file of a model of your own, for a WORKDIR
"""
BAD = ("fail", "skip")


def main(argv: Sequence[str] | None = None) -> int:
    """Classifies what the command line names; returns the exit status (see `run_command`)."""
    argv = sys.argv if argv is None else argv
    return run_with_help(argv, HELP, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    defaults = {"model": ..., "csv": None, "confusion": None, "model_file": None}
    defaults |= {"on_bad_image": "fail", "batch_size": 64}
    options, paths = parse_options(argv, defaults, rest="images or folders")
    on_bad_image = check_choice(options, "on_bad_image", BAD)
    # Only now: a wrong command line is answered before jax is loaded.
    from hpjax.handover.classify import classify, load_classifier

    done = classify(
        load_classifier(options["model"], options["model_file"]),
        paths,
        batch_size=options["batch_size"],
        skip_bad=on_bad_image == "skip",
        table=options["csv"],
        matrix=options["confusion"],
    )
    for remark in done.remarks:
        print(one_line(remark), file=sys.stderr)
    if done.skipped:
        print(f"{len(done.skipped):,} bad images left out, the first: {done.skipped[0]}", file=sys.stderr)
    if options["csv"]:
        print(f"{done.images:,} images are in {options['csv']}")
    for line in done.confusion.describe():
        print(line)


if __name__ == "__main__":
    sys.exit(main())
