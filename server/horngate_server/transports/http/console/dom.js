// Elements, numbers in words, and what is announced: the little that every panel needs.

/** Make an element: h("p", {class: "muted", onclick: f}, "text", child). */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

/** Return the element with an id. */
export const by = (id) => document.getElementById(id);

/** Write a number with as many digits as are read at a glance. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)} k`;
  return size >= 100 || Number.isInteger(value) ? String(Math.round(value)) : String(+value.toPrecision(3));
}

/** Write seconds. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${+(seconds * 1e3).toPrecision(3)} ms`;
  if (seconds < 100) return `${+seconds.toPrecision(3)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

/** Write for how long something has been so. */
export const age = (seconds) => duration(seconds < 100 ? Math.round(seconds) : seconds).replace(/^0 µs$/, "0 s");

/** Write bytes. */
export function bytes(size) {
  if (!Number.isFinite(size)) return "–";
  if (size < 1024) return "–";
  if (size < 1 << 20) return `${Math.round(size / 1024)} KiB`;
  return size < 2 ** 30 ? `${Math.round(size / 2 ** 20)} MiB` : `${(size / 2 ** 30).toFixed(1)} GiB`;
}

/** Write a share. */
export const percent = (share) => !Number.isFinite(share) ? "–" : `${(share * 100).toFixed(share >= 0.9995 || share < 0.0005 ? 0 : 1)} %`;

/** Return a button that copies a text, and says that it did. */
export function copyButton(text) {
  const button = h("button", { type: "button", class: "quiet copy", onclick: copy }, "Copy");
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it, and copy by hand";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
  return button;
}
