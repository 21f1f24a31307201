"""The page as a reader has it: in Chromium, on a phone and on a desktop, in light and in dark."""

import json
import re

import pytest
from chromium import Chromium, NotStartedError, find_browser
from page_workdirs import SPACE, record_population, record_search, write_workdir

from hpjax.report.page import load_source, write_page

BROWSER = find_browser()
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="needs Chromium (apt-get install chromium)")]

SIZES = {"phone": (390, 844), "desktop": (1440, 900)}
HOSTILE = [
    "</script><script>document.hacked = 1</script>",
    "<img src=x onerror='document.hacked = 2'>",
    "{{ 7 * 7 }} ${document.hacked = 3} @label{safe}",
    "\u202eesrever\x1b[31m",
    "a" * 300,
    "und & <b>so</b> \"weiter\" 'ja'",
]

PICTURE = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)

# Texts and what is behind them, as the browser paints them.
CONTRASTS = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  const texts = [...document.body.querySelectorAll("*")].filter((e) => !e.closest("script, .plot, svg, .skip")
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
  const theme = readTheme(), paper = hex(theme.paper);
  return {
    texts: texts.map((e) => [contrast(parse(getComputedStyle(e).color), behind(e)), e.textContent]),
    marks: [...theme.colours, ...theme.scale, theme.other].map((c) => [contrast(hex(c), paper), c]),
    ticks: [theme.ink, theme.muted].map((c) => [contrast(hex(c), paper), c]),
  };
})()"""


@pytest.fixture(scope="module")
def browser():
    try:
        started = Chromium(BROWSER)
    except NotStartedError as e:
        pytest.skip(f"{BROWSER} doesn't start: {e}")
    with started as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A search of 60 trials: several pages of the table, every figure."""
    return write_page(record_search(tmp_path_factory.mktemp("page"), trials=60))


@pytest.fixture(scope="module")
def opened(browser, page):
    """The page on a desktop, for tests that leave it as they found it."""
    browser.open(page)
    return browser


def _is_quiet(browser):
    found = (
        browser.messages,
        [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))],
    )
    browser.messages, browser.requests = [], []
    return found == ([], [])


def _rows(browser):
    code = "[...document.querySelectorAll('#table tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    return browser.evaluate(code)


def _column(browser, title):
    heads = browser.evaluate("[...document.querySelectorAll('#table thead th')].map(h => h.textContent)")
    place = next(i for i, head in enumerate(heads) if head.rstrip(" ▲▼") == title)
    return [row[place] for row in _rows(browser)], place


def test_the_table_is_sorted(opened):
    browser = opened
    scores, place = _column(browser, "final validation accuracy")
    assert [float(text) for text in scores] == sorted(map(float, scores), reverse=True)
    head = f"#table thead th:nth-child({place + 1})"
    assert browser.evaluate(f"document.querySelector('{head}').ariaSort") == "descending"
    browser.click(f"{head} button")
    turned, _ = _column(browser, "final validation accuracy")
    assert [float(text) for text in turned] == sorted(map(float, turned))
    browser.click("#table thead th:nth-child(1) button")
    assert _column(browser, "trial")[0] == [str(number) for number in range(50)]
    browser.click("#following")
    assert _column(browser, "trial")[0] == [str(number) for number in range(50, 60)]
    browser.click(f"{head} button")
    assert _column(browser, "final validation accuracy")[0] == scores


def test_the_table_is_filtered(opened):
    browser = opened
    _type(browser, "epochs >= 6, optimizer = sgd")
    found = _rows(browser)
    assert found and {row[1] for row in found} == {"complete"} and all("sgd" in row for row in found)
    assert browser.evaluate("document.getElementById('shown').textContent") == f"{len(found)} of 60 trials"
    _type(browser, "pruned adam")
    assert {row[1] for row in _rows(browser)} == {"pruned"}
    _type(browser, "")
    browser.evaluate("(() => { const s = document.getElementById('status'); s.value = 'complete';"
                     " s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert {row[1] for row in _rows(browser)} == {"complete"}
    _type(browser, "nothing of the kind")
    assert _rows(browser) == []
    _type(browser, "")


def _type(browser, text):
    browser.evaluate(f"(() => {{ const f = document.getElementById('filter'); f.value = {json.dumps(text)};"
                     " f.dispatchEvent(new Event('input')); })()")  # fmt: skip


def _hover_over_winner(browser, column="learning_rate"):
    """Moves the mouse to the winner's dot and returns what is said of it."""
    place = f"""(() => {{
      const plot = document.querySelector('#response-{column} .plot');
      plot.scrollIntoView({{block: 'center'}});
      const data = JSON.parse(document.getElementById('data').textContent), {{columns}} = data.table;
      const row = columns[0].values.indexOf(data.winner);
      const of = (name) => columns.find(c => c.name === name).values[row];
      const view = Bokeh.index.roots.find(v => plot.contains(v.el)), {{frame}} = view;
      const box = view.el.getBoundingClientRect();
      return [box.x + frame.x_scale.compute(of('{column}')), box.y + frame.y_scale.compute(of('score'))];
    }})()"""
    return _hover_over(browser, *browser.evaluate(place))


def _hover_over(browser, x, y):
    """Moves the mouse there and returns what is said."""
    tooltip = """(() => {
      const find = (node) => [...node.children].flatMap(c => [
        ...(c.classList.contains('bk-Tooltip') ? [c] : []), ...find(c),
        ...(c.shadowRoot ? find(c.shadowRoot) : [])]);
      return find(document.body).map(t => t.shadowRoot.textContent).join(' ');
    })()"""
    browser.hover(x - 30, y + 30)
    browser.hover(x, y)
    browser.wait(f"{tooltip}.includes('trial')")
    return browser.evaluate(tooltip)


def test_hovering_says_values(opened, page):
    browser = opened
    best = record_search(page.parent, trials=60).best
    text = _hover_over_winner(browser)
    assert re.search(rf"trial:\s*{best.trial}\b", text)
    assert f"{best.final_validation_accuracy:.4g}" in text
    assert _is_quiet(browser)


def test_every_figure_says_in_words_and_in_a_table_what_it_shows(opened, page):
    browser = opened
    found = browser.evaluate("""[...document.querySelectorAll('figure')].map(f => {
      f.querySelector('details.data').open = true;
      const plot = f.querySelector('.plot');
      const title = f.querySelector('figcaption').textContent;
      return [f.id, plot.getAttribute('role'), plot.getAttribute('aria-label'), title];
    })""")
    browser.wait("[...document.querySelectorAll('figure')].every(f => f.querySelector('details.data td'))")
    kinds = {*("importance", "contour", "rank", "parallel", "spread", "foresight", "best", "lanes")}
    assert kinds <= {figure for figure, *_ in found}
    assert all(role == "img" and len(words) > 40 and title for _, role, words, title in found)


def test_lines_across_all_hyperparameters_say_their_trial(opened):
    place = """(() => {
      const plot = document.querySelector('#parallel .plot');
      plot.scrollIntoView({block: 'center'});
      const view = Bokeh.index.roots.find(v => plot.contains(v.el)), {frame} = view;
      const lines = view.model.renderers.find(r => r.glyph.type === 'MultiLine').data_source.data;
      const i = lines.trial.length - 1, box = view.el.getBoundingClientRect();  // the best is drawn last
      const middle = (lines.ys[i][0] + lines.ys[i][1]) / 2;
      return [box.x + frame.x_scale.compute(0.5), box.y + frame.y_scale.compute(middle)];
    })()"""
    assert re.search(r"rank:\s*1\b", _hover_over(opened, *opened.evaluate(place)))


def test_a_command_is_copied(opened):
    browser = opened
    browser.click("[data-copy=next]")
    browser.wait("/Copied|Selected/.test(document.querySelector('[data-copy=next]').textContent)")
    command = browser.evaluate("document.getElementById('next').textContent")
    assert browser.evaluate("getSelection().toString()").split() == command.split()


def test_figures_take_the_colours_of_the_scheme(opened):
    browser = opened
    corner = "Bokeh.index.roots.find(v => v.model.type === 'Figure').model.border_fill_color"
    assert browser.evaluate(corner) == "#ffffff"
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait("Bokeh.index.roots.some(v => v.model.border_fill_color === '#14161a')")
    assert _is_quiet(browser)


VIEWS = [
    ("phone", True),
    ("desktop", False),
    pytest.param("phone", False, marks=pytest.mark.landing),
    pytest.param("desktop", True, marks=pytest.mark.landing),
]


@pytest.mark.parametrize(("size", "dark"), VIEWS)
def test_it_fits_is_legible_and_asks_for_nothing(browser, page, size, dark):
    width, height = SIZES[size]
    browser.open(page, width, height, dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    plots, drawn = browser.evaluate("""[document.querySelectorAll('.plot').length,
      Bokeh.index.roots.filter(v => v.model.type === 'Figure').length]""")
    assert plots == drawn >= len(SPACE) + 5
    found = browser.evaluate(CONTRASTS)
    assert len(found["texts"]) > 100
    assert [entry for entry in found["texts"] + found["ticks"] if entry[0] < 4.5] == []
    assert [entry for entry in found["marks"] if entry[0] < 3] == []
    assert _is_quiet(browser)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "<b>'\"&amp;<script>alert(1)<" / "</title><script>"
    write_workdir(path, trials=9, classes=HOSTILE)
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    summary["data"] |= {"name": HOSTILE[0], "notice": HOSTILE[1]}
    summary |= {"made_with": {HOSTILE[0]: HOSTILE[1]}, "inputs": {"fingerprints": {HOSTILE[1]: HOSTILE[0]}}}
    finding = {"name": HOSTILE[0], "level": "severe", "sentence": HOSTILE[1], "advice": HOSTILE[2]}
    summary["findings"] = [{**finding, "evidence": {}}, {**finding, "sentence": HOSTILE[3] + HOSTILE[4]}]
    summary["findings"][1]["evidence"] = {}
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    history = (path / "history.jsonl").read_text(encoding="utf-8")
    names = {'"adam"': HOSTILE[0], '"sgd"': HOSTILE[2]}
    for name, value in names.items():
        history = history.replace(name, json.dumps(value))
    history = history.replace('"message": ""', f'"message": {json.dumps(HOSTILE[1])}')
    (path / "history.jsonl").write_text(history, encoding="utf-8")
    mistake = {"image": 3, "label": 0, "predicted": 5, "probability": 0.97, "picture": PICTURE}
    judged = {"trial": load_source(path).best.trial, "classes": 6, "mistakes": [mistake]}
    counts = [[label, taken, 1 + label] for label in range(6) for taken in range(6)]
    (path / "winner.json").write_text(json.dumps({**judged, "counts": counts}), encoding="utf-8")
    return write_page(load_source(path))


def test_hostile_names_are_texts(browser, hostile):
    browser.open(hostile)
    _hover_over_winner(browser)
    assert browser.evaluate("document.hacked") is None
    foreign = "img:not(.mistakes img), b b, iframe"
    code = f"[document.scripts.length, document.querySelectorAll('{foreign}').length]"
    assert browser.evaluate(code) == [4, 0]  # Bokeh's two, the page's, and its data
    assert browser.evaluate("document.querySelector('.mistakes img').naturalWidth") == 1
    assert HOSTILE[0] in browser.evaluate("document.querySelector('.matrix').textContent")
    assert HOSTILE[0] in browser.evaluate("document.querySelector('header').textContent")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 1440
    browser.open(hostile, 390, 844)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert _is_quiet(browser)


def test_what_got_into_the_page_unescaped_would_not_run(browser, page, tmp_path):
    text = page.read_text(encoding="utf-8").replace("<main>", "<main><script>document.hacked = 4</script>"
                                    "<img src=x onerror='document.hacked = 5'>")  # fmt: skip
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    browser.open(tmp_path / "report.html")
    assert browser.evaluate("document.hacked") is None
    assert len(browser.messages) >= 2  # the browser refused both
    browser.messages, browser.requests = [], []


def test_a_population_is_drawn(browser, tmp_path):
    browser.open(write_page(record_population(tmp_path)), 390, 844)
    plots, drawn = browser.evaluate("""[document.querySelectorAll('.plot').length,
      Bokeh.index.roots.filter(v => v.model.type === 'Figure').length]""")
    assert plots == drawn and browser.evaluate("!!document.getElementById('lineage-learning_rate')")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert _is_quiet(browser)


@pytest.mark.landing
def test_a_thousand_trials_are_readable(browser, tmp_path):
    browser.open(write_page(record_search(tmp_path, trials=1000, epochs=30, pruned=0.2)))
    assert browser.evaluate("document.getElementById('shown').textContent") == "1,000 trials"
    assert "150 of 1,000 settings are drawn" in browser.evaluate("document.body.textContent")
    assert _is_quiet(browser)


@pytest.mark.exhaustive
def test_twenty_thousand_trials_open(browser, tmp_path):
    browser.open(write_page(record_search(tmp_path, trials=20_000, epochs=10)), 390, 844)
    text = browser.evaluate("document.body.textContent")
    assert "3,000 of 20,000 trials are drawn" in text and "20,000 trials" in text
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert _is_quiet(browser)
