// Prometheus' text format, and what can be reckoned from two looks at it.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { n: "\n", "\\": "\\", '"': '"' };

/** Read a page of metrics: by name, a list of [labels, value]. */
export function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const found = line[0] === "#" ? null : LINE.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, escaped) => ESCAPED[escaped] ?? escaped);
    }
    const samples = families.get(found[1]) ?? [];
    samples.push([labels, found[3] === "+Inf" ? Infinity : Number(found[3])]);
    families.set(found[1], samples);
  }
  return families;
}

/** Return the samples of a metric that have these labels. */
export function select(families, name, wanted = {}) {
  const fits = ([labels]) => Object.entries(wanted).every(([label, value]) => labels[label] === value);
  return (families.get(name) ?? []).filter(fits);
}

/** Add up the samples of a metric that have these labels. */
export const sum = (families, name, wanted) => select(families, name, wanted).reduce((total, [, value]) => total + value, 0);

/** Add up a metric's samples by one of their labels. */
export function sumBy(families, name, label, wanted) {
  const sums = new Map();
  for (const [labels, value] of select(families, name, wanted)) {
    sums.set(labels[label], (sums.get(labels[label]) ?? 0) + value);
  }
  return sums;
}

/** Return by how much sums grew; a counter that began anew grew by what it has. */
export function growth(now, before) {
  const grown = new Map();
  for (const [key, value] of now) {
    const old = before.get(key) ?? 0;
    grown.set(key, value >= old ? value - old : value);
  }
  return grown;
}

/** Return a histogram's growth as [upper bound, count], in order, no count within another. */
export function buckets(now, before, name, wanted) {
  const at = (families) => sumBy(families, `${name}_bucket`, "le", wanted);
  const grown = [...growth(at(now), at(before))].map(([bound, count]) => [bound === "+Inf" ? Infinity : Number(bound), count]);
  grown.sort(([one], [other]) => one - other);
  return grown.map(([bound, count], place) => [bound, count - (place ? grown[place - 1][1] : 0)]);
}

/** Return where a share of a histogram lies; NaN where it is empty. */
export function quantile(histogram, share) {
  const total = histogram.reduce((sum, [, count]) => sum + count, 0);
  let left = total * share;
  let low = 0;
  for (const [bound, count] of histogram) {
    if (count && left <= count) return Number.isFinite(bound) ? low + ((bound - low) * left) / count : low;
    left -= count;
    if (Number.isFinite(bound)) low = bound;
  }
  return NaN;
}
