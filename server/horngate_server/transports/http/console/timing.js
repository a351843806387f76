// Where an answer's time went.

import { duration, h } from "./dom.js";

const PARTS = ["network", "queue", "compute"];

export class Timing {
  constructor() {
    this.parts = PARTS.map((name) => h("span", { class: name }));
    this.numbers = PARTS.map(() => h("b", {}, "–"));
    this.total = h("b", {}, "–");
    const legend = PARTS.map((name, place) => h("span", { class: `key ${name}` }, `${name} `, this.numbers[place]));
    this.element = h("div", { class: "timing" },
      h("div", { class: "split", "aria-hidden": "true" }, this.parts),
      h("p", { class: "legend" }, h("span", {}, "in all ", this.total), legend));
  }

  /** Show how long an answer took, and how much of it the server says. */
  show(seconds, parameters = {}) {
    const queue = (parameters.horngate_queue_us ?? NaN) / 1e6;
    const compute = (parameters.horngate_compute_us ?? NaN) / 1e6;
    const split = [Math.max(seconds - queue - compute, 0), queue, compute];
    this.total.textContent = duration(seconds);
    split.forEach((part, place) => {
      this.numbers[place].textContent = duration(part);
      this.parts[place].style.flexGrow = Number.isFinite(part) ? part / seconds : 0;
    });
  }
}
