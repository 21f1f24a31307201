// Figures of searches, beside those of figures.js: what mattered, how axes act together, how the search judged.

// Values of an axis that lists them lie at 0, 1, …; others where their scale has them.
function placeOn(axis, value) {
  if (value === null || value === undefined || value === "") return null;
  if (!axis.listed) return value;
  const at = axis.levels.indexOf(value);
  return at < 0 ? null : at;
}

function axisType(axis) {
  return axis.log && !axis.listed ? "log" : "linear";
}

// Ticks and label of one side of a map.
function setMapAxis(made, side, axis, values) {
  const drawn = side === "x" ? made.xaxes[0] : made.yaxes[0];
  drawn.axis_label = axis.name + (axisType(axis) === "log" ? " (log scale)" : "");
  if (axis.listed) {
    const ticks = axis.levels.map((_, i) => i);
    drawn.ticker = new Bokeh.FixedTicker({ ticks });
    drawn.major_label_overrides = new Map(axis.levels.map((level, i) => [i, shorten(format(level))]));
    made[`${side}_range`] = new Bokeh.Range1d({ start: -0.5, end: axis.levels.length - 0.5 });
    if (side === "x" && axis.levels.map((level) => shorten(format(level))).join("").length > made.width / 10) drawn.major_label_orientation = 0.6;
  } else if (axis.log) setLogTicks(drawn, values);
}

function shorten(text, most = 18) {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

// A value with the three digits that tell bands apart.
function brief(value) {
  return format(Number(value.toPrecision(3)));
}

function bandColour(theme, levels, value) {
  const bands = levels.length - 1, low = levels[0], high = levels.at(-1);
  const band = high > low ? Math.min(bands - 1, Math.max(0, Math.floor(bands * (value - low) / (high - low)))) : 0;
  return onScale(theme, bands > 1 ? band / (bands - 1) : 0);
}

// The trials that have a score and a place on every one of some axes, the best first; of very many some of every rank.
function rankedRows(data, axes, most) {
  const columns = axes.map((axis) => column(data, axis.column)), scores = column(data, "score");
  const trials = column(data, "trial"), status = column(data, "status");
  const rows = [];
  trials.forEach((trial, i) => {
    const values = columns.map((values) => values?.[i] ?? null), places = axes.map((axis, j) => placeOn(axis, values[j]));
    if (scores[i] !== null && status[i] !== "diverged" && places.every((place) => place !== null)) rows.push({ trial, score: scores[i], status: status[i], values, places });
  });
  rows.sort((a, b) => (data.less ? a.score - b.score : b.score - a.score) || a.trial - b.trial);
  rows.forEach((row, i) => { row.rank = i + 1; });
  if (rows.length <= most) return { rows, of: rows.length };
  const head = Math.floor(most / 4), step = (rows.length - head) / (most - head);
  return { rows: [...rows.slice(0, head), ...Array.from({ length: most - head }, (_, i) => rows[head + Math.floor(i * step)])], of: rows.length };
}

// The best has the far end of the scale, whose colour stands out most; the worst the near one.
function rankColour(theme, row, of) {
  return onScale(theme, of > 1 ? (of - row.rank) / (of - 1) : 1);
}

function rankLegend(theme, of) {
  return [[swatch(theme.scale.at(-1), "solid", true), "rank 1"], [swatch(theme.scale[0], "solid", true), `rank ${of.toLocaleString("en")}`]];
}

function columnsOf(rows, axes) {
  const found = { trial: rows.map((row) => String(row.trial)), score: rows.map((row) => format(row.score)), rank: rows.map((row) => String(row.rank)) };
  axes.forEach((axis, j) => { found[`v${j}`] = rows.map((row) => format(row.values[j])); });
  return found;
}

function tooltipsOf(axes, data) {
  return [["trial", "@trial"], ["rank", "@rank"], ...axes.map((axis, j) => [axis.name, `@v${j}`]), [data.rankedBy, "@score"]];
}

function percent(value) {
  return value === null ? "–" : `${(100 * value).toPrecision(value >= 0.0995 ? 2 : 1)} %`;
}

Object.assign(DRAW, {
  importance(plot, figure, data, theme) {
    const { rows } = figure, count = rows.length, both = rows.some((row) => row.fanova !== null);
    const made = createPlot(plot, theme, { y_range: new Bokeh.Range1d({ start: count - 0.4, end: -0.6 }), height: Math.max(220, 60 + 44 * count) }, "share of the importance", null);
    plot.style.height = `${made.height}px`;
    made.x_range = new Bokeh.Range1d({ start: 0, end: 1.04 * Math.max(...rows.flatMap((row) => [row.ped, row.fanova ?? 0, row.chance])) });
    made.yaxes[0].ticker = new Bokeh.FixedTicker({ ticks: rows.map((_, i) => i) });
    made.yaxes[0].major_label_overrides = new Map(rows.map((row, i) => [i, shorten(row.name, plot.clientWidth < 500 ? 16 : 30)]));
    const kinds = [["ped", "PED-ANOVA", theme.colours[0], -0.34], ["fanova", "fANOVA", theme.colours[2], 0.04]].slice(0, both ? 2 : 1);
    const renderers = kinds.map(([name, label, colour, top]) => {
      const shown = rows.map((row, i) => [row, i]).filter(([row]) => row[name] !== null);
      const source = new Bokeh.ColumnDataSource({ data: {
        left: shown.map(() => 0), right: shown.map(([row]) => row[name]), top: shown.map(([, i]) => i + top), bottom: shown.map(([, i]) => i + top + 0.3),
        name: shown.map(([row]) => row.name), value: shown.map(([row]) => percent(row[name])), kind: shown.map(() => label), chance: shown.map(([row]) => percent(row.chance)),
      } });
      return made.quad({ field: "left" }, { field: "right" }, { field: "bottom" }, { field: "top" }, { source, fill_color: colour, line_color: null });
    });
    rows.forEach((row, i) => made.line({ x: [row.chance, row.chance], y: [i - 0.42, i + 0.04], line_color: theme.colours[1], line_width: 3 }));
    addHover(made, renderers, [["hyperparameter", "@name"], ["by", "@kind"], ["share", "@value"], ["chance (PED-ANOVA)", "@chance"]]);
    setLegend(plot, [...kinds.map(([, label, colour]) => [swatch(colour, "solid", true), label]), [swatch(theme.colours[1]), "what chance gives PED-ANOVA"]]);
    return made;
  },

  contour(plot, figure, data, theme) {
    const { x, y, cells, edges, levels } = figure;
    const made = createPlot(plot, theme, { x_axis_type: axisType(x), y_axis_type: axisType(y) }, x.name, y.name);
    const ends = (side, i) => (edges[side].length ? [edges[side][i], edges[side][i + 1]] : [i - 0.5, i + 0.5]);
    const found = { left: [], right: [], top: [], bottom: [], colour: [], value: [] };
    cells.forEach((row, j) => row.forEach((value, i) => {
      if (value === null) return;
      const [left, right] = ends(0, i), [bottom, top] = ends(1, j);
      found.left.push(left); found.right.push(right); found.bottom.push(bottom); found.top.push(top);
      found.colour.push(bandColour(theme, levels, value)); found.value.push(format(value));
    }));
    const quads = made.quad({ field: "left" }, { field: "right" }, { field: "bottom" }, { field: "top" }, {
      source: new Bokeh.ColumnDataSource({ data: found }), fill_color: { field: "colour" }, line_color: { field: "colour" }, line_width: 0.5 });
    const axes = [x, y], { rows } = rankedRows(data, axes, 300);
    made.scatter({ x: rows.map((row) => row.places[0]), y: rows.map((row) => row.places[1]), size: 3, fill_color: theme.ink, line_color: null, fill_alpha: 0.6 });
    const best = rows.filter((row) => row.trial === data.winner);
    if (best.length) made.scatter({ x: [best[0].places[0]], y: [best[0].places[1]], size: 16, fill_color: null, line_color: theme.colours[1], line_width: 3 });
    setMapAxis(made, "x", x, edges[0]);
    setMapAxis(made, "y", y, edges[1]);
    addHover(made, [quads], [[`mean ${data.rankedBy}`, "@value"]]);
    const bands = levels.slice(0, -1).map((level, i) => [swatch(onScale(theme, i / (levels.length - 2)), "solid", "square"), `${brief(level)} to ${brief(levels[i + 1])}`]);
    setLegend(plot, [...bands, [swatch(theme.ink, "solid", true), "a trial"], ...(best.length ? [[swatch(theme.colours[1], "solid", "ring"), `winner, trial ${data.winner}`]] : [])]);
    return made;
  },

  rank(plot, figure, data, theme) {
    const axes = [figure.x, figure.y], { rows, of } = rankedRows(data, axes, MOST_DOTS);
    const made = createPlot(plot, theme, { x_axis_type: axisType(figure.x), y_axis_type: axisType(figure.y) }, figure.x.name, figure.y.name);
    // Trials with equal listed values would hide each other: they are set side by side.
    const aside = (axis, row) => (axis.listed ? 0.6 * ((row.trial * 0.618034) % 1) - 0.3 : 0);
    const source = new Bokeh.ColumnDataSource({ data: {
      x: rows.map((row) => row.places[0] + aside(axes[0], row)).reverse(), y: rows.map((row) => row.places[1] + aside(axes[1], { trial: row.trial + 7 })).reverse(),
      colour: rows.map((row) => rankColour(theme, row, of)).reverse(),
      ...Object.fromEntries(Object.entries(columnsOf(rows, axes)).map(([name, values]) => [name, values.reverse()])),
    } });
    const dots = made.scatter({ field: "x" }, { field: "y" }, { source, size: of > 300 ? 6 : 9, fill_color: { field: "colour" }, line_color: null });
    setMapAxis(made, "x", axes[0], rows.map((row) => row.places[0]));
    setMapAxis(made, "y", axes[1], rows.map((row) => row.places[1]));
    addHover(made, [dots], tooltipsOf(axes, data));
    setLegend(plot, rankLegend(theme, of));
    return made;
  },

  parallel(plot, figure, data, theme) {
    const { axes, rows, of } = parallelRows(figure, data);
    const made = createPlot(plot, theme, { x_range: new Bokeh.Range1d({ start: -0.35, end: axes.length - 0.65 }), y_range: new Bokeh.Range1d({ start: -0.12, end: 1.12 }), height: 380 }, null, null);
    plot.style.height = "380px";
    made.yaxes[0].visible = false;
    for (const grid of [...made.xgrids, ...made.ygrids]) grid.visible = false;
    const narrow = plot.clientWidth / axes.length < 130;
    made.xaxes[0].ticker = new Bokeh.FixedTicker({ ticks: axes.map((_, i) => i) });
    made.xaxes[0].major_label_overrides = new Map(axes.map((axis, i) => [i, shorten(axis.name, narrow ? 16 : 26)]));
    if (narrow) made.xaxes[0].major_label_orientation = 0.7;
    axes.forEach((axis, i) => made.line({ x: [i, i], y: [0, 1], line_color: theme.muted, line_width: 1 }));
    const turned = [...rows].reverse();
    const source = new Bokeh.ColumnDataSource({ data: {
      xs: turned.map((row) => row.heights.map((_, i) => i)), ys: turned.map((row) => row.heights), colour: turned.map((row) => rankColour(theme, row, of)),
      width: turned.map((row) => (row.trial === data.winner ? 3.5 : 1.2)), alpha: turned.map((row) => (row.trial === data.winner ? 1 : rows.length > 60 ? 0.55 : 0.8)),
      ...columnsOf(turned, figure.axes),
    } });
    const lines = made.multi_line({ field: "xs" }, { field: "ys" }, { source, line_color: { field: "colour" }, line_width: { field: "width" }, line_alpha: { field: "alpha" } });
    const texts = axes.flatMap((axis, i) => axis.marks.map(([height, text]) => ({ i, height, text: shorten(text, narrow ? 9 : 16), edge: height <= 0 ? "bottom" : height >= 1 ? "top" : "side" })));
    for (const [edge, options] of Object.entries({ bottom: { text_align: "center", text_baseline: "top", y_offset: 3 }, top: { text_align: "center", text_baseline: "bottom", y_offset: -3 }, side: { text_align: "left", text_baseline: "middle", x_offset: 5 } })) {
      const found = texts.filter((text) => text.edge === edge);
      if (found.length) made.text({ x: found.map((t) => t.i), y: found.map((t) => t.height), text: found.map((t) => t.text), text_font_size: "12px", text_color: theme.ink, text_font: "sans-serif", ...options });
    }
    addHover(made, [lines], tooltipsOf(figure.axes, data), { line_policy: "nearest" });
    setLegend(plot, [...rankLegend(theme, of), ...(rows.some((row) => row.trial === data.winner) ? [[swatch(rankColour(theme, rows[0], of)), `thick: winner, trial ${data.winner}`]] : [])]);
    return made;
  },

  spread(plot, figure, data, theme) {
    const made = createPlot(plot, theme, { x_axis_type: figure.log ? "log" : "linear", y_range: new Bokeh.Range1d({ start: 0, end: 1.02 }) }, data.rankedBy + (figure.log ? " (log scale)" : ""), "share of trials up to it");
    if (figure.log) setLogTicks(made.xaxes[0], figure.lines.flatMap((line) => line.x));
    const found = { x: [], y: [], label: [], value: [], share: [], colour: [] };
    figure.lines.forEach((line, i) => {
      made.step({ x: line.x, y: line.y, mode: "after", line_color: theme.colours[i], line_width: 2.2, line_dash: DASHES[i] });
      line.x.forEach((x, j) => {
        found.x.push(x); found.y.push(line.y[j]); found.label.push(line.label); found.value.push(format(x)); found.share.push(percent(line.y[j])); found.colour.push(theme.colours[i]);
      });
    });
    const dots = made.scatter({ field: "x" }, { field: "y" }, { source: new Bokeh.ColumnDataSource({ data: found }), size: 4, fill_color: { field: "colour" }, line_color: null });
    addHover(made, [dots], [["trials that", "@label"], [data.rankedBy, "@value"], ["share up to it", "@share"]]);
    setLegend(plot, figure.lines.map((line, i) => [swatch(theme.colours[i], DASHES[i]), `${line.label}: ${line.count.toLocaleString("en")} trials`]));
    return made;
  },

  foresight(plot, figure, data, theme) {
    const { rows } = figure, low = Math.min(0, ...rows.map((row) => row.agreement ?? 0)), last = rows.at(-1).epoch;
    const made = createPlot(plot, theme, { y_range: new Bokeh.Range1d({ start: low - 0.02, end: 1.05 }), x_range: new Bokeh.Range1d({ start: 0.4, end: last + 0.6 }) }, "epoch", "correlation, share");
    const every = Math.max(1, Math.ceil(last / 10));
    made.xaxes[0].ticker = new Bokeh.FixedTicker({ ticks: [...new Set([1, ...Array.from({ length: last }, (_, i) => i + 1).filter((e) => e % every === 0)])] });
    const most = Math.max(...rows.map((row) => row.pruned)), pruned = rows.filter((row) => row.pruned);
    if (most) {
      made.quad({ left: pruned.map((r) => r.epoch - 0.3), right: pruned.map((r) => r.epoch + 0.3), bottom: pruned.map(() => 0), top: pruned.map((r) => 0.5 * r.pruned / most), fill_color: theme.other, fill_alpha: 0.45, line_color: null });
    }
    const source = new Bokeh.ColumnDataSource({ data: {
      x: rows.map((r) => r.epoch), y: rows.map((r) => r.agreement), agreement: rows.map((r) => format(r.agreement)), kept: rows.map((r) => percent(r.kept)), pruned: rows.map((r) => String(r.pruned)),
    } });
    made.line({ x: rows.map((r) => r.epoch), y: rows.map((r) => r.kept), line_color: theme.colours[1], line_dash: "dashed", line_width: 2 });
    made.line({ x: rows.map((r) => r.epoch), y: rows.map((r) => r.agreement), line_color: theme.colours[0], line_width: 2.5 });
    const dots = made.scatter({ field: "x" }, { field: "y" }, { source, size: 7, fill_color: theme.colours[0], line_color: null });
    addHover(made, [dots], [["after epoch", "@x"], ["rank correlation", "@agreement"], ["best tenth in the better half", "@kept"], ["pruned then", "@pruned"]], { mode: "vline" });
    setLegend(plot, [[swatch(theme.colours[0]), "rank correlation with the final value"], [swatch(theme.colours[1], "dashed"), "of the best tenth, in the better half then"],
      ...(most ? [[swatch(theme.other, "solid", "square"), `pruned after an epoch, up to ${most.toLocaleString("en")}`]] : [])]);
    return made;
  },

  lineage(plot, figure, data, theme) {
    const made = createPlot(plot, theme, { y_axis_type: figure.log ? "log" : "linear" }, "epoch", figure.name + (figure.log ? " (log scale)" : ""));
    const { tracks, copies, ancestry } = figure;
    if (figure.log) setLogTicks(made.yaxes[0], tracks.map((track) => track[3]));
    made.multi_line({ xs: tracks.map(([, start, end]) => [start, end]), ys: tracks.map(([, , , value]) => [value, value]), line_color: theme.other, line_width: 1.2 });
    made.multi_line({ xs: copies.map(([, epoch]) => [epoch, epoch]), ys: copies.map(([, , , from, to]) => [from, to]), line_color: theme.colours[0], line_width: 1, line_dash: "dotted" });
    if (ancestry.length) made.line({ x: ancestry.map((p) => p[0]), y: ancestry.map((p) => p[1]), line_color: theme.colours[1], line_width: 3 });
    const source = new Bokeh.ColumnDataSource({ data: {
      x: copies.map((c) => c[1]), y: copies.map((c) => c[4]), trial: copies.map((c) => String(c[0])), source: copies.map((c) => String(c[2])), from: copies.map((c) => format(c[3])), to: copies.map((c) => format(c[4])),
    } });
    const dots = made.scatter({ field: "x" }, { field: "y" }, { source, size: 6, fill_color: theme.colours[0], line_color: null });
    addHover(made, [dots], [["trial", "@trial"], ["after epoch", "@x"], ["took over trial", "@source"], ["whose value was", "@from"], ["went on with", "@to"]]);
    setLegend(plot, [[swatch(theme.other), "a trial"], [swatch(theme.colours[0], "solid", true), "took over another's state"], ...(ancestry.length ? [[swatch(theme.colours[1]), `ancestry of the best, trial ${data.winner}`]] : [])]);
    return made;
  },
});

// Heights of trials on every axis, and what is written beside the axes; the last axis is the score.
function parallelRows(figure, data) {
  const { rows, of } = rankedRows(data, figure.axes, figure.most);
  const score = { name: data.rankedBy, numeric: true, log: false, listed: false };
  const axes = [...figure.axes, score].map((axis, j) => {
    const at = (row) => (j < figure.axes.length ? row.places[j] : row.score);
    const scale = (value) => (axisType(axis) === "log" ? Math.log(value) : value);
    const low = axis.listed ? 0 : scale(Math.min(...rows.map(at))), high = axis.listed ? axis.levels.length - 1 : scale(Math.max(...rows.map(at)));
    const height = (row) => (high > low ? (scale(at(row)) - low) / (high - low) : 0.5);
    const marks = axis.listed
      ? axis.levels.map((level, i) => [axis.levels.length > 1 ? i / (axis.levels.length - 1) : 0.5, format(level)])
      : [[0, format(Math.min(...rows.map(at)))], [1, format(Math.max(...rows.map(at)))]];
    return { ...axis, height, marks };
  });
  for (const row of rows) row.heights = axes.map((axis) => axis.height(row));
  return { axes, rows, of };
}

Object.assign(TABLES, {
  importance(figure) {
    return [["hyperparameter", "PED-ANOVA", "chance", "fANOVA"], figure.rows.map((row) => [row.name, row.ped, row.chance, row.fanova])];
  },
  contour({ x, y, cells, edges }) {
    const ends = (axis, ends, i) => (ends.length ? `${format(ends[i])} to ${format(ends[i + 1])}` : format(axis.levels[i]));
    return [[`${y.name} \\ ${x.name}`, ...cells[0].map((_, i) => ends(x, edges[0], i))], cells.map((row, j) => [ends(y, edges[1], j), ...row])];
  },
  rank(figure, data) {
    const axes = [figure.x, figure.y];
    return [["trial", "rank", ...axes.map((axis) => axis.name), data.rankedBy], rankedRows(data, axes, MOST_DOTS).rows.map((row) => [row.trial, row.rank, ...row.values, row.score])];
  },
  parallel(figure, data) {
    return [["trial", "rank", ...figure.axes.map((axis) => axis.name), data.rankedBy], rankedRows(data, figure.axes, figure.most).rows.map((row) => [row.trial, row.rank, ...row.values, row.score])];
  },
  spread(figure, data) {
    return [["trials that", data.rankedBy, "share up to it"], figure.lines.flatMap((line) => line.x.map((x, i) => [line.label, x, line.y[i]]))];
  },
  foresight({ rows }) {
    return [["epoch", "rank correlation", "best tenth in the better half", "pruned then"], rows.map((row) => [row.epoch, row.agreement, row.kept, row.pruned])];
  },
  lineage({ copies }) {
    return [["trial", "after epoch", "took over trial", "whose value was", "went on with"], copies];
  },
});
