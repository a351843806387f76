// Why: the signature "explain" says what each pixel speaks for (red) and against (blue).

import { modelPath, post } from "./api.js";
import { h } from "./dom.js";

export class Explanation {
  constructor(shown, pad) {
    this.path = `${modelPath(shown.name, shown.version)}/infer`;
    this.image = pad.image;
    this.canvas = h("canvas", { width: pad.image.width, height: pad.image.height, class: "overlay", role: "img", "aria-label": "Attribution: red speaks for the class, blue against it" });
    this.box = h("input", { type: "checkbox", id: "why", checked: true, onchange: () => (this.canvas.hidden = !this.box.checked) });
    this.says = h("span", { class: "muted" });
    this.element = h("div", { class: "why" }, h("label", {}, this.box, " Why"),
      h("span", {}, h("span", { class: "for" }, "red speaks for it"), ", ", h("span", { class: "against" }, "blue against")), this.says);
  }

  /** Ask for the attributions of an image, and lay them over it. */
  async explain(tensor) {
    if (!this.box.checked) return;
    const inputs = [tensor, { name: "target", datatype: "INT64", shape: [1], data: [-1] }];
    try {
      const { answer } = await post(this.path, { inputs, parameters: { signature: "explain", priority: 2 } });
      const found = Object.fromEntries(answer.outputs.map(({ name, data }) => [name, data]));
      this.draw(found.attributions.map(Number));
      this.says.textContent = found.gap ? `all together off by ${Math.abs(Number(found.gap[0])).toFixed(3)}` : "";
    } catch (error) {
      this.clear();
      this.says.textContent = error.message;
    }
  }

  draw(values) {
    const { width, height, channels } = this.image;
    const most = values.reduce((top, value) => Math.max(top, Math.abs(value)), 0) || 1;
    const pixels = new ImageData(width, height);
    for (let at = 0; at < width * height; at += 1) {
      let value = 0;
      for (let channel = 0; channel < channels; channel += 1) value += values[at * channels + channel] / most;
      const strength = Math.min(Math.abs(value), 1) ** 0.6 * 230;
      pixels.data.set(value > 0 ? [239, 83, 64, strength] : [66, 133, 244, strength], at * 4);
    }
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  clear() {
    this.canvas.getContext("2d").clearRect(0, 0, this.image.width, this.image.height);
    this.says.textContent = "";
  }
}
