// The table of trials: sorted by any column, filtered by words and comparisons, a page at a time.
const PER_PAGE = 50;

function compare(a, b) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(a) || missing(b)) return { last: missing(a) - missing(b) };
  if (typeof a === "number" && typeof b === "number") return { order: a - b };
  return { order: String(a).localeCompare(String(b), "en", { numeric: true }) };
}

function parseFilter(text, columns) {
  const tests = [];
  for (const part of text.split(",").map((part) => part.trim()).filter(Boolean)) {
    const match = part.match(/^(.+?)\s*(<=|>=|<|>|=)\s*(.+)$/);
    const named = (name, column) => [column.name, column.title].some((n) => n.toLowerCase().replaceAll("_", " ") === name);
    const column = match && columns.find((c) => named(match[1].toLowerCase().replaceAll("_", " "), c));
    if (column) {
      const given = Number(match[3]), number = Number.isNaN(given) ? match[3].toLowerCase() : given;
      tests.push((row) => {
        const value = column.values[row];
        if (value === null || value === "") return false;
        if (typeof value !== "number") return match[2] === "=" && String(value).toLowerCase() === match[3].toLowerCase();
        return { "<": value < number, ">": value > number, "=": value === number, "<=": value <= number, ">=": value >= number }[match[2]];
      });
    } else {
      for (const word of part.toLowerCase().split(/\s+/)) tests.push((row, words) => words(row).includes(word));
    }
  }
  return tests;
}

function drawSpark(points) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "-2 -6 104 111");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  let path = "", pen = "M";
  points.forEach((point, i) => {
    if (point === null) { pen = "M"; return; }
    const x = points.length > 1 ? 100 * i / (points.length - 1) : 0;
    path += `${pen}${x.toFixed(1)} ${99 - point}`;
    if (points.length === 1) path += "h100";
    pen = "L";
  });
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path || "M0 0");
  svg.append(line);
  return svg;
}

function makeTable(data) {
  const table = document.getElementById("table"), { columns, count } = data.table;
  const text = columns.filter((column) => column.kind !== "spark");
  const cache = new Map();
  const words = (row) => {
    if (!cache.has(row)) cache.set(row, text.map((column) => format(column.values[row])).join(" ").toLowerCase());
    return cache.get(row);
  };
  const score = columns.findIndex((column) => column.name === "score");
  const state = { column: score, down: !data.less, page: 0 };
  const all = Array.from({ length: count }, (_, row) => row);
  const trials = columns[0].values, statuses = columns.find((column) => column.name === "status").values;
  const select = document.getElementById("status"), filter = document.getElementById("filter");
  for (const name of [...new Set(statuses)].sort()) select.append(element("option", { value: name }, name));
  const heads = columns.map((column, i) => {
    const head = element("th", { scope: "col", class: column.kind === "number" ? "number" : "" });
    if (column.kind === "spark") head.append(column.title);
    else {
      const button = element("button", { type: "button" }, column.title);
      button.addEventListener("click", () => {
        const first = i === score && !data.less;  // the best ones first
        state.down = state.column === i ? !state.down : first;
        Object.assign(state, { column: i, page: 0 });
        show();
      });
      head.append(button);
    }
    return head;
  });
  const body = element("tbody");
  table.append(element("thead", {}, element("tr", {}, ...heads)), body);

  function find() {
    const tests = parseFilter(filter.value, text);
    const rows = all.filter((row) => (!select.value || statuses[row] === select.value) && tests.every((test) => test(row, words)));
    const { values } = columns[state.column], sign = state.down ? -1 : 1;
    return rows.sort((a, b) => {
      const found = compare(values[a], values[b]);
      return found.last ?? (sign * found.order || trials[a] - trials[b]);
    });
  }

  function show() {
    const rows = find(), pages = Math.max(1, Math.ceil(rows.length / PER_PAGE));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * PER_PAGE, shown = rows.slice(from, from + PER_PAGE);
    heads.forEach((head, i) => {
      if (i === state.column) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
      const button = head.querySelector("button");
      if (button) button.textContent = columns[i].title + (i === state.column ? (state.down ? " ▼" : " ▲") : "");
    });
    body.replaceChildren(...shown.map((row) => {
      const line = element("tr", trials[row] === data.winner ? { class: "wins" } : {});
      columns.forEach((column, i) => {
        const value = column.values[row];
        const cell = element(i ? "td" : "th", { class: column.kind });
        if (!i) cell.setAttribute("scope", "row");
        cell.append(column.kind === "spark" ? drawSpark(value) : format(value));
        line.append(cell);
      });
      return line;
    }));
    const of = count.toLocaleString("en"), found = rows.length.toLocaleString("en");
    document.getElementById("shown").textContent = rows.length === count ? `${of} trials` : `${found} of ${of} trials`;
    document.getElementById("page").textContent = `page ${state.page + 1} of ${pages}`;
    document.getElementById("previous").disabled = state.page === 0;
    document.getElementById("following").disabled = state.page >= pages - 1;
    document.querySelector(".pages").hidden = rows.length <= PER_PAGE;
  }

  const again = () => { state.page = 0; show(); };
  filter.addEventListener("input", again);
  select.addEventListener("change", again);
  filter.form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("previous").addEventListener("click", () => { state.page -= 1; show(); });
  document.getElementById("following").addEventListener("click", () => { state.page += 1; show(); });
  show();
}
