// What a model says of the classes: the likeliest in large, all of them as bars.

import { h, percent, short } from "./dom.js";

const ALL = 12;
const FIRST = 10;

export class Scores {
  constructor() {
    this.top = h("output", { class: "answer", id: "answer" }, "–");
    this.sure = h("span", { class: "muted", id: "sure" });
    this.bars = h("ol", { class: "bars", "aria-label": "All classes" });
    this.spoken = h("p", { class: "visually-hidden", role: "status" });
    this.element = h("div", { class: "scores" }, h("div", { class: "headline" }, this.top, this.sure), this.bars, this.spoken);
  }

  /** Show scores, with names where they are known; speak where a drawing is complete. */
  show(values, labels, isComplete) {
    const order = values.map((value, place) => [value, place]).sort(([one], [other]) => other - one);
    const chosen = values.length <= ALL ? values.map((value, place) => [value, place]) : order.slice(0, FIRST);
    const areShares = values.every((value) => value >= 0 && value <= 1.0001);
    const low = Math.min(...values, 0);
    const range = areShares ? 1 : Math.max(...values) - low || 1;
    const written = areShares ? percent : short;
    const name = (place) => labels[place] || String(place);
    const [best, place] = order[0];
    this.top.textContent = name(place);
    this.top.classList.toggle("long", name(place).length > 3);
    this.sure.textContent = written(best);
    if (this.bars.childElementCount !== chosen.length) this.bars.replaceChildren(...chosen.map(row));
    chosen.forEach(([value, at], row) => {
      const item = this.bars.children[row];
      item.classList.toggle("best", at === place);
      item.children[0].textContent = name(at);
      item.children[1].firstChild.style.width = `${(100 * (value - (areShares ? 0 : low))) / range}%`;
      item.children[2].textContent = written(value);
    });
    if (isComplete) this.spoken.textContent = `The model says ${name(place)}, ${written(best)}`;
  }

  clear() {
    this.top.textContent = "–";
    this.sure.textContent = "";
    this.bars.replaceChildren();
  }
}

function row() {
  return h("li", {}, h("span", { class: "name" }), h("span", { class: "track" }, h("span", {})), h("span", { class: "value" }));
}
