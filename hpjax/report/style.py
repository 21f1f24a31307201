"""How figures look: colours told apart by everyone, plain numbers, titles that stand alone."""

import contextlib
import logging
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpjax.errors import HpjaxError, WorkdirError, one_line, text_of
from hpjax.store.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color Universal Design"; their yellow is left out: it can't be seen as a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
LINES = ("-", "--", "-.", ":")
GREY = "#9a9a9a"
NOTICE_COLOUR = "#9c2f00"
MOST_LABELLED = 10
_DPI = 120
_MOST_PIXELS = 8_000  # of a figure's height
_LONGEST_VALUE, _LONGEST_LINE = 80, 600  # characters

log = logging.getLogger("hpjax")


@dataclass(frozen=True)
class FigureInfo:
    """What every figure says about its sweep.

    Attributes:
      dataset: e.g. `intel_scenes, 150 px`.
      model: e.g. `custom_cnn`.
      swept: the hyperparameters that vary, by name.
      details: what else was fixed, e.g. `batch size 450, learning rate 1e-4`.
      notice: shown in full on every figure, e.g. that synthetic scenes stand in for images.
      classes: how many; draws the accuracy of guessing. 0: unknown.
      winner: number of the setting that the metric selects; None: not marked.
      choices: those of the swept hyperparameters whose values were listed, not drawn from a range.
      logs: those that were searched in the logarithm.
      ranking: what ranks trials and settings.
      ranked_by: the same in words, as it is said on figures; empty: not said.
      minimize: whether less is better of a metric of the user's own.
      own_metric: the name of its function; empty: there is none.
      loss_unit: what an axis of losses says.
      example: what one example is called.
      images: of each split that is measured, by `test` and `validation`; draws intervals of accuracies.

    """

    dataset: str
    model: str
    swept: tuple[str, ...]
    details: str = ""
    notice: str = ""
    classes: int = 0
    winner: int | None = None
    choices: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    ranking: Ranking = Ranking("test_accuracy")
    ranked_by: str = ""
    minimize: bool = False
    own_metric: str = ""
    loss_unit: str = "nats per image"
    example: str = "image"
    images: Mapping[str, int] = field(default_factory=dict)

    @property
    def chance(self) -> tuple[float, ...]:
        """The accuracy of guessing, which every axis of accuracies shows; empty where it isn't known."""
        return (1 / self.classes,) if self.classes > 1 else ()

    def images_of(self, column: str) -> int:
        """Returns on how many images an accuracy's column was measured; 0 where that isn't known."""
        split = next((name for name in self.images if f"{name}_accuracy" in column), "")
        return self.images.get(split, 0)


def spell(name: str) -> str:
    """Returns a column or hyperparameter as words: `weight_decay` becomes `weight decay`."""
    return name.replace("_", " ")


def format_amount(amount: float) -> str:
    """Returns seconds and the like in three digits or as a whole number, never with an exponent: `1,272`."""
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def format_value(value: object) -> str:
    """Returns a value as a person would write it: 0.0001 becomes `1e-4`, True `yes`, `/a/b.py:C` `b.py:C`."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:.4g}".partition("e")
        if not exponent and value and abs(value) < 1e-3:
            mantissa, _, exponent = f"{value:.3e}".partition("e")
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    text = text_of(value, most=0)
    text = text.rpartition("/")[2] if ".py:" in text else text
    return one_line(text, _LONGEST_VALUE)


def is_number(value: object) -> bool:
    """Returns whether a value has a place on a numeric axis."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_log_like(values: Iterable[float]) -> bool:
    """Returns whether values crowd at the low end of a wide range: a log scale spreads them better."""
    positive = sorted(value for value in values if value > 0)
    if len(positive) < 2 or positive[-1] < 30 * positive[0]:
        return False
    middle = positive[(len(positive) - 1) // 2]
    return middle - positive[0] < 0.25 * (positive[-1] - positive[0])


def join_names(names: Sequence[str], most: int = 3) -> str:
    """Returns hyperparameters as words for a title; only their number where they are many."""
    return ", ".join(map(spell, names)) if len(names) <= most else f"{len(names)} hyperparameters"


@contextlib.contextmanager
def sparing(what: str) -> Iterator[None]:
    """Lets a figure fail, with one line; draws it as on every machine.

    Args:
      what: what is left out then, e.g. `figures/test_loss.png`.
    """
    with leaving_out(what), plain_drawing():
        yield


@contextlib.contextmanager
def leaving_out(what: str) -> Iterator[None]:
    """Lets what only shows results fail, with one line: a sweep is worth more than a picture of it.

    Args:
      what: what is left out then.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, HpjaxError) else f"{type(error).__name__}: {text_of(error)}"
        log.warning("%s is left out: %s", what, reason)


@contextlib.contextmanager
def plain_drawing() -> Iterator[None]:
    """Draws texts as they are, and as on every machine: no formulas between dollar signs, no settings."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a letter that the font lacks, once for each
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def create_figure(title: str, info: FigureInfo, width: float = 10.0, height: float = 5.0) -> "Figure":
    """Returns an empty figure with title, subtitle and notice; drawn without any global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    ranked = f"ranked by {info.ranked_by}" if info.ranked_by else ""
    subtitle = ", ".join(part for part in (f"{info.model} on {info.dataset}", info.details, ranked) if part)
    subtitle = textwrap.fill(one_line(subtitle, _LONGEST_LINE), int(width * 13))
    notice = textwrap.fill(one_line(info.notice, _LONGEST_LINE), int(width * 15))
    figure.text(0.02, 1, title, va="top", size=13, weight="bold")
    figure.text(0.02, 1, subtitle, va="top", size=9, color="#444444")
    figure.text(0.02, 0, notice, va="bottom", size=8, color=NOTICE_COLOUR)
    place_texts(figure)
    return figure


def place_texts(figure: "Figure", head: float = 0.0, foot: float = 0.0) -> float:
    """Puts texts at fixed distances from the edges and the axes between them.

    Args:
      figure: of `create_figure`.
      head: further inches to leave free above the axes.
      foot: and below them.

    Returns:
      Where the free foot begins, as a share of the height.
    """
    title, subtitle, notice = figure.texts[:3]
    height = figure.get_figheight()
    title.set_y(1 - 0.12 / height)
    subtitle.set_y(1 - 0.4 / height)
    notice.set_y(0.06 / height)
    top = 1 - (head + 0.45 + 0.17 * (subtitle.get_text().count("\n") + 1)) / height
    lines = notice.get_text().count("\n") + 1 if notice.get_text() else 0
    start = (0.06 + 0.16 * lines) / height
    bottom = start + foot / height
    figure.set_layout_engine("constrained", rect=(0.01, bottom, 0.98, top - bottom), h_pad=0.05)
    return start


def tidy_axes(axes: "Axes", xlabel: str, ylabel: str) -> None:
    """Labels both axes, and takes away what carries no information."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_chance(axes: "Axes", info: FigureInfo, word: bool = True) -> None:
    """Draws the accuracy of guessing on an axis of accuracies, and what it is beside it."""
    if info.classes > 1:
        style = {"color": "#666666", "linestyle": (0, (1, 3)), "linewidth": 1.2, "zorder": 1}
        axes.axhspan(1 / info.classes, 1 / info.classes, fill=False, **style)
    if info.classes > 1 and word:
        axes.annotate(
            "guessing",
            (1, 1 / info.classes),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),  # beside the axes, where no curve passes
            textcoords="offset points",
            va="center",
            size=8,
            color="#666666",
        )


def set_log_scale(axis: Any, values: Sequence[float]) -> None:
    """Makes an axis (`axes.xaxis` or `axes.yaxis`) logarithmic with plain labels; zero keeps its place."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = [value for value in values if value > 0]
    if min(values) <= 0:
        axis._set_axes_scale("symlog", linthresh=min(positive), linscale=0.5)
    else:
        axis._set_axes_scale("log")
        decades = math.log10(max(positive) / min(positive))
        axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_value(float(value))))
    axis.set_minor_formatter(NullFormatter())


def create_folder(path: Path) -> Path:
    """Creates the folder of figures; raises WorkdirError where that can't be."""
    from hpjax.store.workdir import describe_os_error

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(describe_os_error("create", path, error)) from error
    return path


def save_figure(figure: "Figure", path: Path) -> Path:
    """Writes a figure as PNG at once, and returns its path."""
    import io

    from hpjax.store.workdir import atomic_write

    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=min(_DPI, _MOST_PIXELS / figure.get_figheight()))
    atomic_write(path, image.getvalue())
    return path
