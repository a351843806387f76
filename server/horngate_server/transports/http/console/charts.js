// Small charts in SVG. Numbers stand beside them as text; a chart is a picture with a sentence for who does not see it.

import { h, svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 64;

/** How many values a line has at most: the newest is at the right. */
export const STEPS = 120;

/** Draw lines over time: series of {name, values, class}. */
export function lines(series, label) {
  const top = Math.max(...series.flatMap(({ values }) => values.filter(Number.isFinite)), 0) || 1;
  const paths = series.flatMap(({ values, class: name }, place) => {
    const points = values.map((value, at) => [
      WIDTH - ((values.length - 1 - at) * WIDTH) / (STEPS - 1),
      Number.isFinite(value) ? HEIGHT - 2 - (value / top) * (HEIGHT - 6) : null,
    ]);
    const path = joined(points);
    const shown = [svg("path", { d: path, class: `line ${name}`, "vector-effect": "non-scaling-stroke" })];
    const known = points.filter(([, y]) => y !== null);
    if (place === 0 && known.length > 1 && known.length === points.length) {
      shown.unshift(svg("path", { d: `${path}L${WIDTH},${HEIGHT}L${known[0][0]},${HEIGHT}Z`, class: `area ${name}` }));
    }
    return shown;
  });
  const grid = [0.25, 0.5, 0.75].map((share) =>
    svg("path", { d: `M0,${HEIGHT * share}H${WIDTH}`, class: "grid", "vector-effect": "non-scaling-stroke" }),
  );
  return picture(label, [...grid, ...paths]);
}

function joined(points) {
  let path = "";
  let open = false;
  for (const [x, y] of points) {
    if (y === null) open = false;
    else {
      path += `${open ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`;
      open = true;
    }
  }
  return path;
}

/** Draw columns: of {name, value} and, where it is known, what was expected. */
export function columns(items, label) {
  const top = Math.max(...items.flatMap(({ value, expected }) => [value, expected ?? 0]), 0) || 1;
  const step = WIDTH / items.length;
  const bars = items.flatMap(({ value, expected }, place) => {
    const shown = [bar(place * step + step * 0.15, expected === undefined ? step * 0.7 : step * 0.4, value / top, "bar")];
    if (expected !== undefined) shown.push(bar(place * step + step * 0.55, step * 0.3, expected / top, "bar expected"));
    return shown;
  });
  const names = items.map(({ name }) => h("span", {}, name));
  return h("div", {}, picture(label, bars), h("div", { class: "axis", "aria-hidden": "true" }, names));
}

function bar(x, width, share, name) {
  const height = Math.max(share * (HEIGHT - 4), share > 0 ? 1.5 : 0);
  return svg("rect", { x, y: HEIGHT - height, width, height, class: name });
}

function picture(label, children) {
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "chart", role: "img" };
  return svg("svg", { ...box, "aria-label": label }, ...children);
}

/** Draw how full something is. */
export function meter(value, most, label) {
  const share = most > 0 ? Math.min(value / most, 1) : 0;
  const filled = h("div", { class: share > 0.8 ? "filled full" : "filled" });
  filled.style.width = `${share * 100}%`;
  const state = { role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": most, "aria-valuenow": value };
  return h("div", { class: "meter", ...state }, filled);
}
