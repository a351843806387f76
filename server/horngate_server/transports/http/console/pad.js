// Where one draws: strokes by mouse, finger or pen, a file, or a digit; and what the model gets of it.

import { digit, DIGITS, SIDE } from "./digits.js";
import { h } from "./dom.js";

const SIZE = 280;
const INK_WIDTH = 22;
const GLYPH_SHARE = 20 / 28;
const MARGIN = 2;
const SMALL = 64;

export class Pad {
  /**
   * @param image what the model takes (tensors.imageInput).
   * @param changed called whenever there is something new to ask; with true when a stroke or a picture is complete.
   */
  constructor(image, changed) {
    this.image = image;
    this.changed = changed;
    this.isSmall = image.channels === 1 && image.height <= SMALL && image.width <= SMALL;
    this.scale = 1;
    this.blank = true;
    this.canvas = h("canvas", {
      width: SIZE, height: SIZE, class: "pad", role: "img", id: "pad",
      "aria-label": "Drawing area. Without a pointer, choose a test digit or a file below.",
    });
    this.ink = this.canvas.getContext("2d", { willReadFrequently: true });
    this.preview = h("canvas", { width: image.width, height: image.height, class: "preview", role: "img", "aria-label": "What the model gets" });
    this.hint = h("p", { class: "pad-hint", "aria-hidden": "true" }, this.isSmall ? "Draw a digit" : "Draw, or drop a picture");
    this.file = h("input", { type: "file", accept: "image/*", id: "file", class: "visually-hidden", onchange: () => this.take(this.file.files[0]) });
    this.element = h("div", { class: "pad-column" }, h("div", { class: "pad-frame" }, this.canvas, this.hint), this.controls());
    this.listen();
  }

  controls() {
    const digits = this.isSmall
      ? DIGITS.map((name) => h("button", { type: "button", "aria-label": `Test digit ${name}`, onclick: () => this.putDigit(name) }, name))
      : [];
    const clear = h("button", { type: "button", onclick: () => this.clear() }, "Clear");
    return h("div", { class: "buttons" }, clear, h("label", { class: "button", for: "file" }, "File…"), this.file, ...digits);
  }

  listen() {
    let last = null;
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.canvas.setPointerCapture(event.pointerId);
      last = at(event);
      this.stroke(last, last);
      event.preventDefault();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) {
        const next = at(each);
        this.stroke(last, next);
        last = next;
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(end, () => {
        if (last) this.changed(true);
        last = null;
      });
    }
    this.canvas.addEventListener("dragover", (event) => event.preventDefault());
    this.canvas.addEventListener("drop", (event) => {
      event.preventDefault();
      this.take(event.dataTransfer.files[0]);
    });
  }

  stroke(from, to) {
    Object.assign(this.ink, { strokeStyle: "#fff", lineWidth: INK_WIDTH, lineCap: "round", lineJoin: "round" });
    this.ink.beginPath();
    this.ink.moveTo(...from);
    this.ink.lineTo(...to);
    this.ink.stroke();
    this.touched();
    this.changed(false);
  }

  touched() {
    this.blank = false;
    this.hint.hidden = true;
  }

  clear() {
    this.ink.clearRect(0, 0, SIZE, SIZE);
    this.blank = true;
    this.hint.hidden = false;
    this.changed(true);
  }

  putDigit(name) {
    const small = new ImageData(SIDE, SIDE);
    digit(name).forEach((value, place) => small.data.set([255, 255, 255, value], place * 4));
    const source = new OffscreenCanvas(SIDE, SIDE);
    source.getContext("2d").putImageData(small, 0, 0);
    this.put(source, SIDE, SIDE);
  }

  async take(file) {
    if (!file) return;
    try {
      const picture = await createImageBitmap(file);
      this.put(picture, picture.width, picture.height);
      if (this.isSmall) this.turnDark();
      this.changed(true);
    } catch {
      this.hint.textContent = "That file is no picture that this browser can read";
      this.hint.hidden = false;
    }
  }

  /** Fill the pad with a picture. */
  put(picture, width, height) {
    const side = Math.min(width, height);
    this.ink.clearRect(0, 0, SIZE, SIZE);
    this.ink.imageSmoothingQuality = "high";
    this.ink.drawImage(picture, (width - side) / 2, (height - side) / 2, side, side, 0, 0, SIZE, SIZE);
    this.touched();
    this.changed(true);
  }

  /** Make light strokes on nothing of a picture, whichever way it was: its edge is the paper. */
  turnDark() {
    const pixels = this.ink.getImageData(0, 0, SIZE, SIZE);
    const light = lightness(pixels.data);
    const edge = light.filter((_, at) => at < SIZE || at >= SIZE * (SIZE - 1) || at % SIZE === 0 || at % SIZE === SIZE - 1);
    const isPaper = edge.reduce((total, value) => total + value, 0) / edge.length > 127;
    light.forEach((value, at) => pixels.data.set([255, 255, 255, isPaper ? 255 - value : value], at * 4));
    this.ink.putImageData(pixels, 0, 0);
  }

  /** Return the tensor, and show what it holds. */
  tensor() {
    const { width, height, channels } = this.image;
    const context = this.preview.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.drawImage(this.isSmall ? this.centred() : reduced(this.canvas, 0, 0, SIZE, SIZE, width, height), 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data;
    const values = channels === 1 ? lightness(pixels) : pixels.filter((_, at) => at % 4 < 3);
    const factor = this.image.datatype === "UINT8" ? 1 : this.scale / 255;
    const data = Array.from(values, (value) => (factor === 1 ? value : +(value * factor).toFixed(4)));
    return { name: this.image.name, datatype: this.image.datatype, shape: this.image.shape, data };
  }

  /** Return the drawing as MNIST has its digits: as large as 20 pixels of 28, its mass in the middle. */
  centred() {
    const { width, height } = this.image;
    const ink = this.ink.getImageData(0, 0, SIZE, SIZE).data;
    let [left, top, right, bottom, mass, massX, massY] = [SIZE, SIZE, -1, -1, 0, 0, 0];
    for (let at = 0; at < SIZE * SIZE; at += 1) {
      const amount = ink[at * 4 + 3];
      if (amount < 32) continue;
      const [x, y] = [at % SIZE, (at / SIZE) | 0];
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
      mass += amount;
      massX += amount * x;
      massY += amount * y;
    }
    if (!mass) return this.canvas;
    const side = Math.max(right - left, bottom - top) + 1;
    const window = side / GLYPH_SHARE;
    const margin = (window * MARGIN) / SIDE;
    const begin = (centre, first, last) => Math.min(Math.max(centre - window / 2, last + 1 + margin - window), first - margin);
    return reduced(this.canvas, begin(massX / mass, left, right), begin(massY / mass, top, bottom), window, window, width, height);
  }
}

/** Reduce a part of a canvas, each pixel the mean of those that it stands for. */
function reduced(source, x, y, sourceWidth, sourceHeight, width, height) {
  const times = Math.max(1, Math.round(224 / width));
  const large = new OffscreenCanvas(width * times, height * times);
  const context = large.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, x, y, sourceWidth, sourceHeight, 0, 0, large.width, large.height);
  if (times === 1) return large;
  const from = context.getImageData(0, 0, large.width, large.height).data;
  const into = new ImageData(width, height);
  for (let at = 0; at < width * height; at += 1) {
    const [left, top] = [(at % width) * times, Math.floor(at / width) * times];
    const sums = [0, 0, 0, 0];
    for (let row = 0; row < times; row += 1) {
      for (let column = 0; column < times; column += 1) {
        const place = ((top + row) * large.width + left + column) * 4;
        const alpha = from[place + 3];
        for (let channel = 0; channel < 3; channel += 1) sums[channel] += from[place + channel] * alpha;
        sums[3] += alpha;
      }
    }
    const alpha = sums[3] || 1;
    into.data.set([sums[0] / alpha, sums[1] / alpha, sums[2] / alpha, sums[3] / (times * times)], at * 4);
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(into, 0, 0);
  return small;
}

function lightness(pixels) {
  const values = new Uint8Array(pixels.length / 4);
  for (let at = 0; at < values.length; at += 1) {
    const [red, green, blue, alpha] = pixels.subarray(at * 4, at * 4 + 4);
    values[at] = Math.round(((0.299 * red + 0.587 * green + 0.114 * blue) * alpha) / 255);
  }
  return values;
}
