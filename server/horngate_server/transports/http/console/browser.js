// "In your browser": the same model by TensorFlow.js, beside the server's answer. Asked for nothing until it is opened.

import { headers } from "./api.js";
import { h, percent } from "./dom.js";

const NO_BUNDLE = "This server was built without TensorFlow.js: build the wheel where npm is, and it is in it.";
const NO_MODEL = "This version has no TensorFlow.js model: export it with --formats savedmodel,tfjs.";
const TOLERANCE = 1e-3;

export class BrowserPanel {
  constructor(shown, classes) {
    this.shown = shown;
    this.classes = classes;
    this.model = null;
    this.last = null;
    this.says = h("p", { role: "status" }, "");
    this.element = h("details", { class: "browser", ontoggle: () => this.element.open && this.start() }, h("summary", {}, "In your browser"), this.says);
  }

  async start() {
    if (this.model) return;
    this.says.textContent = "Loading…";
    const bundle = "/console/tfjs.js";
    try {
      this.tf = await import(bundle);
    } catch {
      this.says.textContent = NO_BUNDLE;
      return;
    }
    const { name, serving } = this.shown;
    const path = `/models/${encodeURIComponent(name)}/versions/${encodeURIComponent(serving)}/tfjs/model.json`;
    try {
      await this.tf.ready();
      this.model = await this.tf.loadGraphModel(path, { requestInit: { headers: headers(), credentials: "omit" } });
      this.says.textContent = "Ready: draw something.";
      if (this.last) await this.compare(...this.last);
    } catch {
      this.says.textContent = NO_MODEL;
    }
  }

  /** Compute a tensor here too, and say whether it agrees with the server. */
  async compare(tensor, scores) {
    this.last = [tensor, scores];
    if (!this.model || !this.element.open) return;
    const { tf } = this;
    const began = performance.now();
    const input = tf.tensor(tensor.data, tensor.shape, tensor.datatype === "UINT8" ? "int32" : "float32");
    const found = await this.run({ [tensor.name]: input });
    const here = Array.from(await (Array.isArray(found) ? found[0] : found).data());
    const took = performance.now() - began;
    const difference = here.reduce((most, value, at) => Math.max(most, Math.abs(value - scores[at])), 0);
    const best = here.indexOf(Math.max(...here));
    const agrees = difference < TOLERANCE ? "✓ agrees with the server" : "✗ differs from the server";
    this.says.textContent = `${best}, ${percent(here[best])}, in ${took.toFixed(1)} ms (${tf.getBackend()}): ${agrees}, by ${difference.toExponential(1)} at most.`;
    this.says.dataset.agrees = difference < TOLERANCE;
    tf.dispose([input, found]);
  }

  /** Compute; only graphs with control flow need the slower way. */
  run(inputs) {
    try {
      return this.model.execute(inputs, this.outputName());
    } catch {
      return this.model.executeAsync(inputs, this.outputName());
    }
  }

  outputName() {
    const outputs = this.model.modelSignature?.outputs ?? {};
    return outputs[this.classes.name]?.name ?? this.classes.name;
  }
}
