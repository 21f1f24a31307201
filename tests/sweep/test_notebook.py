"""A result in a notebook: frames, figures, and an answer in HTML."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient
from tiny_network import MODEL

from hpjax.config import parse_config
from hpjax.errors import UsageError
from hpjax.report.notebook import describe_in_html
from hpjax.sweep import load_result, run, run_sweep

NOTEBOOK = Path(__file__).parents[2] / "docs/notebook.ipynb"


@pytest.fixture(scope="module")
def drawn():
    return {}


@pytest.fixture(scope="module")
def result(drawn, tmp_path_factory):
    data = {"name": "digits", "image_size": 12, "max_train_examples": 50, "max_test_examples": 30}
    space = {"learning_rate": (1e-3, 1e-2)}
    config = parse_config(
        {"model": MODEL, "data": data, "train": {"batch_size": 12, "epochs": 2}, "sweep": {"space": space}}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "draw_figures", lambda *arguments: drawn.update(info=arguments[3]))
        return run_sweep(config, tmp_path_factory.mktemp("notebook") / "s")


def test_frames_have_every_row(result):
    frame = result.frame()
    assert list(frame["trial"]) == [0, 1] and list(frame["learning_rate"]) == [1e-3, 1e-2]
    assert list(frame["final_test_accuracy"]) == [trial.final_test_accuracy for trial in result.trials]
    epochs = result.epochs_frame()
    assert len(epochs) == 4 and list(epochs["train_loss"]) == [row.train_loss for row in result.epochs]


def test_frames_without_pandas_say_so(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="frames need pandas"):
        result.frame()


def test_a_figure_is_the_one_that_is_saved(result, drawn):
    figure = load_result(result.workdir).figure("test_accuracy")
    assert isinstance(figure, Figure)
    assert figure.texts[0].get_text() == "Test accuracy per epoch, by learning rate"
    (axes,) = figure.axes
    assert axes.get_ylabel() == "test accuracy (share of images)"
    curves = [line.get_ydata()[-1] for line in axes.lines if len(line.get_ydata()) == 2]
    assert curves == [trial.final_test_accuracy for trial in result.trials]
    info = drawn["info"]
    assert info.dataset == "digits (50 training images), 12 px" and info.classes == 10
    assert info.dataset in figure.texts[1].get_text()


def test_a_figure_that_isnt_there_names_those_that_are(result):
    with pytest.raises(UsageError, match="'accuracy' is not there: expected one of train_loss,"):
        result.figure("accuracy")


def test_html_says_what_the_terminal_says(result):
    html = result._repr_html_()
    assert result.outcome in html and all(finding.level in html for finding in result.diagnosis)
    assert "<script>" not in describe_in_html("<script>", ["<script>"], result.diagnosis)


@pytest.mark.landing
def test_the_notebook_runs(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    kernel = tmp_path / "jupyter_data_dir/kernels/python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1]), *sys.path]))
    notebook = nbformat.reads(NOTEBOOK.read_text(encoding="utf-8"), as_version=4)
    done = NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in done.cells}
    shown = {name: [key for out in found for key in out.get("data", ())] for name, found in outputs.items()}
    assert "text/html" in shown["run"] and "text/html" in shown["trials"] and "text/html" in shown["epochs"]
    assert "image/png" in shown["figure"]
