"use strict";
// Colours are those of the stylesheet, of the scheme that the reader has chosen.
const scheme = matchMedia("(prefers-color-scheme: dark)");
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    paper: get("paper"), ink: get("ink"), muted: get("muted"), line: get("line"), other: get("other"),
    colours: [0, 1, 2, 3, 4, 5, 6].map((i) => get(`c${i}`)),
    scale: get("scale").split(",").map((colour) => colour.trim()),
  };
}

// A colour between those of a scale; `place` from 0 to 1.
function onScale(theme, place) {
  const at = Math.min(Math.max(place, 0), 1) * (theme.scale.length - 1);
  const low = Math.floor(at), share = at - low;
  const [a, b] = [theme.scale[low], theme.scale[Math.min(low + 1, theme.scale.length - 1)]].map((hex) =>
    [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return `#${a.map((v, i) => Math.round(v + share * (b[i] - v)).toString(16).padStart(2, "0")).join("")}`;
}

// As Python writes values on figures: 0.0001 is 1e-4.
function format(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return "–";
  if (value === 0 || Number.isInteger(value) && Math.abs(value) < 1e5) return String(value);
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(4)));
  const [mantissa, exponent] = value.toExponential(3).split("e");
  return `${Number(mantissa)}e${Number(exponent)}`;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
