// "Try it": asks the model what one draws or types.

import { modelPath, post } from "./api.js";
import { BrowserPanel } from "./browser.js";
import { h } from "./dom.js";
import { Explanation } from "./explanation.js";
import { Pad } from "./pad.js";
import { Scores } from "./scores.js";
import { Snippets } from "./snippets.js";
import { classesOutput, described, example, imageInput, isFloat, isSingle, nested, read } from "./tensors.js";
import { Timing } from "./timing.js";

const TIMED = { horngate_timing: true };
const MOST_LABELS = 1000;

export class Trial {
  constructor(body) {
    this.body = body;
  }

  /** Draw the panel for a model, by what it takes. */
  show(metadata, shown, signatures) {
    this.shown = shown;
    this.metadata = metadata;
    this.classes = classesOutput(metadata);
    this.labels = [];
    this.timing = new Timing();
    this.snippets = new Snippets();
    this.error = h("p", { class: "error", role: "alert" });
    const image = imageInput(metadata);
    this.body.replaceChildren(image ? this.drawing(image, signatures) : this.form(metadata), this.snippets.element);
  }

  drawing(image, signatures) {
    this.asking = false;
    this.waiting = null;
    this.pad = new Pad(image, (isComplete) => this.drawn(isComplete));
    this.scores = new Scores();
    this.rest = h("pre", { class: "values", hidden: Boolean(this.classes), tabindex: "0", "aria-label": "Outputs" });
    this.explanation = signatures.includes("explain") ? new Explanation(this.shown, this.pad) : null;
    this.browser = new BrowserPanel(this.shown, this.classes);
    const scale = isFloat(image.datatype) ? this.scaleChoice() : null;
    const seen = h("figure", { class: "seen" }, h("div", { class: "layers" }, this.pad.preview, this.explanation?.canvas),
      h("figcaption", {}, "What the model gets"), this.explanation?.element, scale);
    const result = h("div", { class: "result" }, this.classes ? this.scores.element : null, this.rest);
    return h("div", { class: "card" }, h("div", { class: "trial" }, this.pad.element, result, seen),
      this.timing.element, this.error, this.browser.element);
  }

  scaleChoice() {
    const select = h("select", { onchange: () => { this.pad.scale = Number(select.value); this.drawn(true); } },
      h("option", { value: 1 }, "0 to 1"), h("option", { value: 255 }, "0 to 255"));
    return h("label", { class: "scale" }, "Values ", select);
  }

  /** Ask about the drawing; while an answer is on its way, only the newest drawing waits. */
  async drawn(isComplete) {
    if (this.pad.blank) {
      this.waiting = null;
      this.scores.clear();
      this.pad.tensor();
      this.explanation?.clear();
      return;
    }
    if (this.asking) {
      this.waiting = isComplete;
      return;
    }
    this.asking = true;
    const { pad } = this;
    try {
      await this.askDrawing(isComplete);
      this.error.textContent = "";
    } catch (error) {
      this.error.textContent = error.message;
    }
    this.asking = false;
    if (this.waiting !== null && pad === this.pad) {
      const next = this.waiting;
      this.waiting = null;
      await this.drawn(next);
    }
  }

  async askDrawing(isComplete) {
    const { pad } = this;
    const body = { inputs: [pad.tensor()] };
    const { answer, seconds } = await this.ask(body);
    if (pad !== this.pad || pad.blank) return;
    this.timing.show(seconds, answer.parameters);
    if (isComplete) this.snippets.show(this.shown, body);
    if (!this.classes) {
      this.rest.textContent = written(answer.outputs);
      return;
    }
    const found = answer.outputs.find(({ name }) => name === this.classes.name);
    if (!this.labels.length) this.labels = await this.names(body, found.shape[1]);
    this.scores.show(found.data.map(Number), this.labels, isComplete);
    if (isComplete) {
      await this.browser.compare(body.inputs[0], found.data.map(Number));
      await this.explanation?.explain(body.inputs[0]);
    }
  }

  /** Return the names of the classes, which the classification extension tells; once per model. */
  async names(body, count) {
    const names = Array.from({ length: count }, (_, place) => String(place));
    if (count > MOST_LABELS) return names;
    const outputs = [{ name: this.classes.name, parameters: { classification: count } }];
    try {
      const { answer } = await post(this.path(), { ...body, outputs });
      for (const each of answer.outputs[0].data) {
        const [, place, ...label] = each.split(":");
        if (label.length) names[place] = label.join(":");
      }
    } catch {
      // the answer itself stands: its classes go by number
    }
    return names;
  }

  form(metadata) {
    const fields = metadata.inputs.map((tensor, place) => field(tensor, place));
    const outputs = h("div", { class: "outputs", "aria-live": "polite" }, h("p", { class: "muted" }, "The answer will stand here."));
    const submit = async (event) => {
      event.preventDefault();
      this.error.textContent = "";
      try {
        const body = { inputs: fields.map(({ tensor, control }) => read(tensor, control.value)) };
        this.snippets.show(this.shown, body);
        const { answer, seconds } = await this.ask(body);
        this.timing.show(seconds, answer.parameters);
        outputs.replaceChildren(...answer.outputs.map(output));
      } catch (error) {
        this.error.textContent = error.message;
      }
    };
    const asked = h("form", { class: "fields", onsubmit: submit }, fields.map(({ element }) => element),
      h("button", { class: "main", type: "submit" }, "Ask"), this.error);
    return h("div", { class: "card" }, h("div", { class: "trial plain" }, asked, outputs), this.timing.element);
  }

  path() {
    return `${modelPath(this.shown.name, this.shown.version)}/infer`;
  }

  ask(body) {
    return post(this.path(), { ...body, parameters: TIMED });
  }
}

function field(tensor, place) {
  const id = `field-${place}`;
  const isText = tensor.datatype === "BYTES";
  const settings = { id, spellcheck: "false", autocomplete: "off", "aria-describedby": `${id}-about` };
  const single = { type: "text", inputmode: isText || tensor.datatype === "BOOL" ? "text" : "decimal", ...settings };
  const control = isSingle(tensor) ? h("input", single) : h("textarea", { rows: 3, ...settings });
  control.value = example(tensor);
  const about = h("span", { class: "muted", id: `${id}-about` }, described(tensor));
  return { tensor, control, element: h("div", { class: "field" }, h("label", { for: id }, tensor.name), about, control) };
}

function output({ name, datatype, shape, data }) {
  const values = laidOut(nested(data, shape));
  return h("div", { class: "output" }, h("h3", {}, name, " ", h("span", { class: "muted" }, `${datatype} [${shape.join(", ")}]`)),
    h("pre", { class: "values", tabindex: "0", "aria-label": `Values of ${name}` }, values ?? ""));
}

/** Write nested values, the innermost lists on a line each. */
function laidOut(values, indent = "") {
  if (!Array.isArray(values) || !values.some(Array.isArray)) return JSON.stringify(values);
  return `[\n${values.map((each) => `${indent} ${laidOut(each, `${indent} `)}`).join(",\n")}\n${indent}]`;
}

const written = (outputs) => outputs.map(({ name, shape, data }) => `${name} [${shape}]\n${JSON.stringify(data)}`).join("\n\n");
