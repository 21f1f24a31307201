// Draws figures with Bokeh; each kind is a function of (plot, figure, data) and has its values as a table.
const MOST_DOTS = 3000, MOST_LABELLED = 7, BEST_OF_MANY = 5, MOST_TABLE_ROWS = 300;
const DASHES = ["solid", "dashed", "dotdash", "dotted", "dashdot", "solid", "dashed"];

function column(data, name) {
  return data.table.columns.find((column) => column.name === name)?.values;
}

function createPlot(plot, theme, options, x, y) {
  const figure = Bokeh.Plotting.figure({
    width: plot.clientWidth, height: 320, sizing_mode: "stretch_width", tools: [], toolbar_location: null, min_border_right: 12,
    background_fill_color: theme.paper, border_fill_color: theme.paper, outline_line_color: null, ...options,
  });
  Object.assign(figure.toolbar, { logo: null, visible: false });
  for (const [axes, label] of [[figure.xaxes, x], [figure.yaxes, y]]) {
    for (const axis of axes) {
      Object.assign(axis, {
        axis_label: label, axis_label_text_color: theme.ink, axis_label_text_font_style: "normal",
        axis_label_text_font_size: "13px", major_label_text_color: theme.muted, major_label_text_font_size: "12px",
        axis_line_color: theme.muted, major_tick_line_color: theme.muted, minor_tick_line_color: null,
      });
    }
  }
  for (const grid of [...figure.xgrids, ...figure.ygrids]) grid.grid_line_color = theme.line;
  return figure;
}

function addHover(figure, renderers, tooltips, more = {}) {
  figure.add_tools(new Bokeh.HoverTool({ renderers, tooltips, ...more }));
}

// Ticks of a logarithmic axis, written as everywhere else on the page.
function setLogTicks(axis, values) {
  const positive = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...positive))), high = Math.ceil(Math.log10(Math.max(...positive)));
  const steps = high - low > 2 ? [1] : [1, 2, 5], every = Math.ceil((high - low) / 8);
  const ticks = [];
  for (let power = low; power <= high; power += every) for (const step of steps) ticks.push(Number(`${step}e${power}`));
  axis.ticker = new Bokeh.FixedTicker({ ticks });
  axis.major_label_overrides = new Map(ticks.map((tick) => [tick, format(tick)]));
}

function swatch(colour, dash = "solid", marker = false) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 28 12");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, marker === "square" ? "rect" : marker ? "circle" : "line");
  const pattern = { solid: "", dashed: "6", dotdash: "2 4 6 4", dotted: "2 4", dashdot: "6 4 2 4" }[dash];
  const shape = marker === "square" ? { x: 8, y: 0, width: 12, height: 12, fill: colour } : marker === "ring" ? { cx: 14, cy: 6, r: 4.5, fill: "none", stroke: colour, "stroke-width": 2 } : marker ? { cx: 14, cy: 6, r: 4, fill: colour } : { x1: 0, y1: 6, x2: 28, y2: 6, stroke: colour, "stroke-width": 2.5, "stroke-dasharray": pattern };
  for (const [name, value] of Object.entries(shape)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function setLegend(plot, entries) {
  plot.parentElement.querySelector(".legend").replaceChildren(...entries.map(([mark, text, wins]) =>
    element("li", wins ? { class: "wins" } : {}, mark, text)));
}

function lineStyles(theme, figure) {
  const labelled = figure.lines.length <= MOST_LABELLED ? figure.lines.length : BEST_OF_MANY;
  return figure.lines.map((line, i) => {
    if (figure.scale && figure.lines.length > MOST_LABELLED) {
      return { colour: onScale(theme, figure.scale.places[i]), dash: "solid", shown: line.wins, width: line.wins ? 3.5 : 1.4 };
    }
    if (i < labelled) return { colour: theme.colours[i], dash: DASHES[i], shown: true, width: line.wins ? 3.5 : 2 };
    return { colour: theme.other, dash: "solid", shown: false, width: 1 };
  });
}

function describeLine(line) {
  const notes = [line.note, line.wins ? "winner" : ""].filter(Boolean).map((note) => `, ${note}`).join("");
  return `${line.label}: ${format(line.result)}${line.seeds > 1 ? ` (mean of ${line.seeds} seeds)` : ""}${notes}`;
}

function accuracyRange(values) {
  const low = Math.min(...values), high = Math.max(...values), margin = Math.max(0.02, 0.06 * (high - low));
  return new Bokeh.Range1d({ start: Math.max(-0.02, low - margin), end: Math.min(1.02, high + margin) });
}

// Ends an axis of losses above the lines that are named, where a few others would flatten them; returns how many.
function cutOff(made, figure, styles) {
  const named = figure.lines.filter((_, i) => styles[i].shown).flatMap((line) => line.y);
  const low = Math.min(...figure.lines.flatMap((line) => line.y)), high = Math.max(...named);
  const beyond = figure.lines.filter((line) => Math.max(...line.y) > low + 2 * (high - low));
  if (!beyond.length) return 0;
  made.y_range = new Bokeh.Range1d({ start: low - 0.05 * (high - low), end: low + 1.3 * (high - low) });
  return beyond.length;
}

const DRAW = {
  curves(plot, figure, data, theme) {
    const accuracy = figure.metric.endsWith("accuracy");
    const values = figure.lines.flatMap((line) => [...line.y, ...(line.low ?? []), ...(line.high ?? [])]);
    const options = figure.log ? { y_axis_type: "log" } : {};
    if (accuracy) options.y_range = accuracyRange(figure.guess === null ? values : [...values, figure.guess]);
    const made = createPlot(plot, theme, options, "epoch", figure.log ? figure.axis.replace(")", ", log scale)") : figure.axis);
    const last = Math.max(...figure.lines.flatMap((line) => line.x)), margin = Math.max(0.3, 0.02 * last);
    made.x_range = new Bokeh.Range1d({ start: 1 - margin, end: last + margin });
    const every = Math.max(1, Math.ceil(last / 10));
    made.xaxes[0].ticker = new Bokeh.FixedTicker({ ticks: [...new Set([1, ...Array.from({ length: last }, (_, i) => i + 1).filter((e) => e % every === 0)])] });
    if (figure.log) setLogTicks(made.yaxes[0], values);
    const styles = lineStyles(theme, figure), cut = accuracy || figure.log ? 0 : cutOff(made, figure, styles);
    const dots = { x: [], y: [], label: [], value: [], epoch: [], colour: [], size: [] };
    // The first are the best: drawn last, they lie above the others.
    for (const i of figure.lines.map((_, i) => i).reverse()) {
      const line = figure.lines[i], { colour, dash, width, shown } = styles[i];
      if (line.low && shown) made.varea({ x: line.x, y1: line.low, y2: line.high, fill_color: colour, fill_alpha: 0.18 });
      made.line({ x: line.x, y: line.y, line_color: colour, line_width: width, line_dash: dash, line_alpha: shown || figure.scale ? 1 : 0.55 });
      line.x.forEach((x, j) => {
        dots.x.push(x); dots.y.push(line.y[j]); dots.label.push(line.label); dots.value.push(format(line.y[j]));
        dots.epoch.push(String(x)); dots.colour.push(colour);
        dots.size.push(line.ended && j === line.x.length - 1 ? 9 : shown && line.x.length <= 30 || line.x.length === 1 ? 5 : 0.1);
      });
    }
    if (figure.guess !== null) {
      made.add_layout(new Bokeh.Span({ location: figure.guess, dimension: "width", line_color: theme.muted, line_dash: "dotted", line_width: 1.5 }));
    }
    const points = made.scatter({ field: "x" }, { field: "y" }, { source: new Bokeh.ColumnDataSource({ data: dots }), size: { field: "size" }, fill_color: { field: "colour" }, line_color: null });
    addHover(made, [points], [["setting", "@label"], ["epoch", "@epoch"], ["value", "@value"]], { mode: "mouse" });
    const entries = figure.lines.flatMap((line, i) => styles[i].shown ? [[swatch(styles[i].colour, styles[i].dash), describeLine(line), line.wins]] : []);
    const others = figure.lines.length - entries.length;
    if (figure.scale && others > 0) {
      entries.push([swatch(theme.scale[0]), `low ${figure.scale.name}`], [swatch(theme.scale.at(-1)), `high ${figure.scale.name}`]);
    } else if (others > 0) entries.push([swatch(theme.other), `the other ${others}`]);
    if (figure.guess !== null) entries.push([swatch(theme.muted, "dotted"), `guessing: ${format(figure.guess)}`]);
    if (figure.lines.some((line) => line.ended)) entries.push([swatch(theme.muted, "solid", true), "large dot: ended early"]);
    if (cut) entries.push([swatch(theme.muted, "solid", true), `${cut} with values above the axis`]);
    setLegend(plot, entries);
    return made;
  },

  response(plot, figure, data, theme) {
    const { rows, categories } = responseRows(figure, data);
    const ys = rows.map((row) => row.y), options = {};
    if (!figure.numeric) options.x_range = new Bokeh.FactorRange({ factors: categories });
    if (figure.log) options.x_axis_type = "log";
    if (data.rankedBy.endsWith("accuracy")) options.y_range = accuracyRange(ys);
    const made = createPlot(plot, theme, options, figure.name + (figure.log ? " (log scale)" : ""), data.rankedBy);
    if (figure.log) setLogTicks(made.xaxes[0], rows.map((row) => row.x));
    const kinds = [["ended early", theme.other, (row) => row.early], ["ran to the end", theme.colours[0], (row) => !row.early]];
    const renderers = [], entries = [];
    for (const [name, colour, belongs] of kinds) {
      const chosen = rows.filter(belongs);
      if (!chosen.length) continue;
      renderers.push(made.scatter({ field: "x" }, { field: "y" }, { source: dotSource(chosen), size: 7, fill_color: colour, line_color: null, fill_alpha: rows.length > 300 ? 0.5 : 0.85 }));
      entries.push([swatch(colour, "solid", true), name]);
    }
    const best = rows.filter((row) => row.trial === data.winner);
    if (best.length) {
      made.scatter({ field: "x" }, { field: "y" }, { source: dotSource(best), size: 16, fill_color: null, line_color: theme.colours[1], line_width: 2.5 });
      entries.push([swatch(theme.colours[1], "solid", "ring"), `winner, trial ${data.winner}`]);
    }
    const envelope = figure.line ? bestOfEach(figure, rows, categories, data.less) : [];
    if (envelope.length > 1) {
      made.line({ x: envelope.map((row) => row.x), y: envelope.map((row) => row.y), line_color: theme.colours[2], line_width: 2, line_dash: "dashed" });
      entries.push([swatch(theme.colours[2], "dashed"), `best of each ${figure.listed ? "value" : "tenth"}`]);
    }
    addHover(made, renderers, [["trial", "@trial"], [figure.name, "@value"], [data.rankedBy, "@score"]]);
    setLegend(plot, entries);
    return made;
  },

  best(plot, figure, data, theme) {
    const xs = [], ys = [], { steps, last } = figure;
    const made = createPlot(plot, theme, {}, "trials that ended", figure.axis);
    steps.forEach(([trials, , value], i) => {
      if (i) { xs.push(trials); ys.push(steps[i - 1][2]); }
      xs.push(trials); ys.push(value);
    });
    xs.push(last.trials); ys.push(steps.at(-1)[2]);
    made.line({ x: xs, y: ys, line_color: theme.colours[0], line_width: 2.5 });
    const dots = new Bokeh.ColumnDataSource({ data: {
      x: steps.map((s) => s[0]), y: steps.map((s) => s[2]), n: steps.map((s) => String(s[0])), seconds: steps.map((s) => format(s[1])),
      value: steps.map((s) => format(s[2])), trial: steps.map((s) => String(s[3])),
    } });
    const points = made.scatter({ field: "x" }, { field: "y" }, { source: dots, size: 9, fill_color: theme.colours[0], line_color: null });
    addHover(made, [points], [["after trials", "@n"], ["after seconds", "@seconds"], ["best", "@value"], ["of trial", "@trial"]]);
    setLegend(plot, [[swatch(theme.colours[0]), `best so far; ${format(last.seconds)} s in all`]]);
    return made;
  },

  lanes(plot, figure, data, theme) {
    const { bars } = figure, names = ["complete", "running", "pruned", "diverged"];
    const colours = { complete: theme.colours[0], running: theme.colours[2], pruned: theme.other, diverged: theme.colours[1] };
    const made = createPlot(plot, theme, { y_range: new Bokeh.Range1d({ start: figure.lanes - 0.5, end: -0.5 }) }, "seconds of training and evaluation", "lane");
    const every = Math.ceil(figure.lanes / 16);
    made.yaxes[0].ticker = new Bokeh.FixedTicker({ ticks: Array.from({ length: Math.ceil(figure.lanes / every) }, (_, i) => i * every) });
    const source = new Bokeh.ColumnDataSource({ data: {
      left: bars.left, right: bars.right, top: bars.lane.map((lane) => lane - 0.4), bottom: bars.lane.map((lane) => lane + 0.4),
      colour: bars.status.map((status) => colours[status]), trial: bars.trial.map(String), status: bars.status,
      from: bars.left.map(format), to: bars.right.map(format),
    } });
    const quads = made.quad({ field: "left" }, { field: "right" }, { field: "bottom" }, { field: "top" }, { source, fill_color: { field: "colour" }, line_color: theme.paper, line_width: 1 });
    addHover(made, [quads], [["trial", "@trial"], ["status", "@status"], ["from second", "@from"], ["to second", "@to"]]);
    setLegend(plot, names.filter((name) => bars.status.includes(name)).map((name) => [swatch(colours[name]), name]));
    return made;
  },
};

function dotSource(rows) {
  return new Bokeh.ColumnDataSource({ data: {
    x: rows.map((row) => row.x), y: rows.map((row) => row.y), trial: rows.map((row) => String(row.trial)),
    value: rows.map((row) => format(row.value)), score: rows.map((row) => format(row.y)),
  } });
}

// The trials that have a place on a figure of one hyperparameter; of very many some of every rank.
function responseRows(figure, data) {
  const values = column(data, figure.column), scores = column(data, "score"), trials = column(data, "trial"), status = column(data, "status");
  let rows = trials.map((trial, i) => ({ trial, x: values[i], value: values[i], y: scores[i], early: status[i] === "pruned" || status[i] === "diverged" }))
    .filter((row) => row.y !== null && row.x !== null && row.x !== "");
  if (rows.length > MOST_DOTS) {
    rows.sort((a, b) => (data.less ? a.y - b.y : b.y - a.y));
    const head = 500, step = (rows.length - head) / (MOST_DOTS - head);
    rows = [...rows.slice(0, head), ...Array.from({ length: MOST_DOTS - head }, (_, i) => rows[head + Math.floor(i * step)])];
  }
  const categories = figure.numeric ? [] : [...new Set(rows.map((row) => String(row.x)))].sort();
  return { rows, categories };
}

function bestOfEach(figure, rows, categories, less) {
  if (rows.length < 3) return [];
  const place = (x) => (figure.log ? Math.log(x) : x);
  const ends = figure.numeric ? [Math.min(...rows.map((row) => place(row.x))), Math.max(...rows.map((row) => place(row.x)))] : [];
  const bucket = (row) => figure.listed || !figure.numeric ? row.x : Math.min(9, Math.floor(10 * (place(row.x) - ends[0]) / (ends[1] - ends[0] || 1)));
  const best = new Map();
  for (const row of rows) {
    const key = bucket(row), held = best.get(key);
    if (!held || (less ? row.y < held.y : row.y > held.y)) best.set(key, row);
  }
  const order = figure.numeric ? (a, b) => a.x - b.x : (a, b) => categories.indexOf(String(a.x)) - categories.indexOf(String(b.x));
  return [...best.values()].sort(order);
}

async function drawFigure(plot, figure, data) {
  const made = DRAW[figure.kind](plot, figure, data, readTheme());
  plot.replaceChildren();
  await Bokeh.Plotting.show(made, plot);
}

// What a figure shows as the head and the rows of a table.
const TABLES = {
  curves(figure) {
    const epochs = [...new Set(figure.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const every = Math.ceil(epochs.length / 12), shown = epochs.filter((_, i) => i % every === 0 || i === epochs.length - 1);
    return [["setting", ...shown.map((epoch) => `epoch ${epoch}`)], figure.lines.map((line) =>
      [line.label, ...shown.map((epoch) => line.y[line.x.indexOf(epoch)] ?? null)])];
  },
  response(figure, data) {
    return [["trial", figure.name, data.rankedBy], responseRows(figure, data).rows.map((row) => [row.trial, row.value, row.y])];
  },
  best(figure) {
    return [["trials that ended", "seconds", "best so far", "of trial"], figure.steps];
  },
  lanes({ bars }) {
    return [["trial", "lane", "from second", "to second", "status"], bars.trial.map((trial, i) => [trial, bars.lane[i], bars.left[i], bars.right[i], bars.status[i]])];
  },
};

function tabulate(figure, data) {
  const [head, rows] = TABLES[figure.kind](figure, data);
  const cells = (name, row) => row.map((value, i) => element(i ? "td" : name, typeof value === "number" && i ? { class: "number" } : {}, format(value)));
  const table = element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((title) => element("th", { scope: "col" }, title)))),
    element("tbody", {}, ...rows.slice(0, MOST_TABLE_ROWS).map((row) => element("tr", {}, ...cells("th", row)))));
  const note = rows.length > MOST_TABLE_ROWS ? [element("p", { class: "note" }, `The first ${MOST_TABLE_ROWS} of ${rows.length.toLocaleString("en")} rows; all are in trials.csv and epochs.csv.`)] : [];
  return [table, ...note];
}
