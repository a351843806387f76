// Every version: what became of it, what it costs, and, for an administrator, what may be changed.

import { post } from "./api.js";
import { age, bytes, duration, h, short } from "./dom.js";

const SIGNS = { ready: "●", loading: "◌", draining: "◍", failed: "✕", found: "○", ended: "○" };
const COLUMNS = ["Version", "State", "Answers to", "Since", "Rows", "Runs on", "In one run", "Checked", "Memory"];
const STABLE = "stable";
const ENGINES = { tensorflow: "TensorFlow", litert: "LiteRT" };

export class Versions {
  /**
   * @param dialog where one is told what would change, and asked.
   * @param look shows the newest state.
   */
  constructor(body, dialog, look) {
    this.body = body;
    this.dialog = dialog;
    this.look = look;
    this.mayChange = false;
    this.rows = new Map();
    this.table = h("tbody", {});
    this.says = h("p", { role: "status", class: "muted" });
    const head = [...COLUMNS, ""].map((name) => name ? h("th", { scope: "col" }, name) : h("td", {}));
    body.replaceChildren(
      h("div", { class: "card table-card" }, h("table", { class: "versions" }, h("thead", {}, h("tr", {}, head)), this.table)), this.says);
  }

  /** Let an administrator change what is served, where the server takes that, and this one has a token. */
  allow(isTaken, hasToken) {
    this.mayChange = isTaken && hasToken;
    this.says.textContent = isTaken && !hasToken ? "What is served can be changed here once the server runs with --tokens, too." : "";
  }

  /** Show the versions of all models. */
  show(models) {
    this.models = models;
    const keys = new Set(models.map(key));
    for (const [name, row] of this.rows) {
      if (!keys.has(name)) {
        for (const each of row.elements) each.remove();
        this.rows.delete(name);
      }
    }
    for (const state of models) {
      const row = this.rows.get(key(state)) ?? this.add(state);
      row.update(state);
    }
  }

  add(state) {
    const cells = COLUMNS.map((name) => h(name === "Version" ? "th" : "td", name === "Version" ? { scope: "row" } : { "data-label": name }));
    const actions = h("td", { class: "actions" });
    const element = h("tr", {}, cells, actions);
    const report = h("details", {}, h("summary", {}, "Load report"), h("div", {}));
    const below = h("tr", { class: "below", hidden: true }, h("td", { colspan: COLUMNS.length + 1 }));
    let shownReport = "";
    let shownActions = "";
    const update = (now) => {
      const loaded = now.report;
      const batching = loaded?.batching ? Object.values(loaded.batching)[0] : null;
      const why = now.reason ? h("span", { class: "reason" }, now.reason) : "";
      const texts = [
        null, null, now.labels.map((label) => label || "everyone").join(", ") || "–",
        isIgnored(now) ? "–" : age(now.age_seconds), isIgnored(now) ? "–" : short(now.rows),
        loaded ? [loaded.device, ENGINES[loaded.engine]].filter(Boolean).join(", ") : "–", loaded ? batching?.mode === "whole" ? "one request" : `up to ${loaded.max_batch_rows} rows` : "–",
        loaded?.verification ?? "–", loaded ? bytes(loaded.memory_bytes) : "–",
      ];
      texts.forEach((text, place) => text !== null && cells[place].textContent !== text && (cells[place].textContent = text));
      if (element.dataset.state !== now.state + now.reason) {
        element.dataset.state = now.state + now.reason;
        cells[1].replaceChildren(h("span", { class: `pill ${now.state}` }, h("span", { "aria-hidden": "true" }, `${SIGNS[now.state] ?? "○"} `), now.state), why);
      }
      const digest = loaded?.digest ?? "";
      if (shownReport !== `${digest}!`) {
        shownReport = `${digest}!`;
        cells[0].textContent = isIgnored(now) ? now.name : `${now.name} ${now.version}`;
        below.hidden = !loaded;
        below.firstChild.replaceChildren(...(loaded ? [report] : []));
        if (loaded) report.lastChild.replaceChildren(loadReport(loaded));
      }
      const wanted = `${this.mayChange} ${now.state} ${now.labels}`;
      if (shownActions !== wanted) {
        shownActions = wanted;
        actions.replaceChildren(...this.actions(now));
      }
    };
    this.rows.set(key(state), { elements: [element, below], update });
    this.table.append(element, below);
    return this.rows.get(key(state));
  }

  actions(state) {
    if (!this.mayChange || isIgnored(state)) return [];
    const button = (text, change) => h("button", { type: "button", "aria-label": `${text} ${state.name} ${state.version}`, onclick: () => this.ask(change) }, text);
    const promotion = !state.labels.includes(STABLE) ? [button("Promote", promote(state, this.models))] : [];
    return state.state === "ready" ? [...promotion, button("Unload", unload(state, this.models))] : [...promotion, button("Load", load(state))];
  }

  /** Say what would change, and do it where one agrees. */
  ask({ title, says, doIt, done }) {
    const error = h("p", { class: "error", role: "alert" });
    const go = h("button", { class: "main", type: "button" }, title.split(" ")[0]);
    const leave = h("button", { type: "button", onclick: () => this.dialog.close() }, "Leave it");
    go.addEventListener("click", async () => {
      go.disabled = true;
      error.textContent = "";
      try {
        await doIt();
        this.dialog.close();
        this.says.textContent = done;
        await this.look();
      } catch (failure) {
        error.textContent = failure.message;
      }
      go.disabled = false;
    });
    this.dialog.replaceChildren(h("h2", { id: "dialog-title" }, title), h("ul", {}, says.map((each) => h("li", {}, each))), error, h("div", { class: "buttons" }, leave, go));
    this.dialog.showModal();
  }
}

/** Whether it is no version but a path that looks like one, with the reason why it is not served. */
const isIgnored = ({ state }) => state === "ignored";
const key = ({ name, version }) => `${name} ${version}`;
const path = (name, what) => `/v2/repository/models/${encodeURIComponent(name)}/${what}`;

function promote({ name, version, state }, models) {
  const now = models.find((each) => each.name === name && each.labels.includes(STABLE)) ?? models.find((each) => each.name === name && each.labels.includes(""));
  return {
    title: `Promote ${name} ${version} to ${STABLE}`,
    says: [
      `Callers of ${name} who name no version, or say “${STABLE}”, get version ${version}${now ? ` instead of ${now.version}` : ""}.`,
      state === "ready" ? "It is loaded: they get it at once." : "It is loaded and checked first; if that fails, nothing changes.",
      "Calls under way are answered by the version that has them.",
    ],
    doIt: () => post(path(name, "load"), { parameters: { version, label: STABLE } }),
    done: `${name} ${version} is ${STABLE} now.`,
  };
}

function load({ name }) {
  return {
    title: `Load ${name}`,
    says: [`${name} is served as its configuration says: its newest version, where that says nothing.`, "Versions that failed are tried again."],
    doIt: () => post(path(name, "load"), {}),
    done: `${name} is loaded.`,
  };
}

function unload({ name }, models) {
  const numbers = models.filter((each) => each.name === name && each.state === "ready").map((each) => each.version);
  return {
    title: `Unload ${name}`,
    says: [`All of ${name} leaves: ${numbers.length > 1 ? "versions" : "version"} ${numbers.join(", ")}.`, "Calls under way are answered; new ones get UNAVAILABLE or NOT_FOUND until it is loaded again."],
    doIt: () => post(path(name, "unload"), {}),
    done: `${name} is unloaded.`,
  };
}

function loadReport(report) {
  const rungs = report.rungs ?? [];
  const best = Math.max(...rungs.map((each) => each.rows_per_second), 1);
  const rows = rungs.map((each) => {
    const filled = h("span", {});
    filled.style.width = `${(100 * each.rows_per_second) / best}%`;
    return h("tr", {}, h("td", {}, short(each.rows)), h("td", {}, duration(each.ms / 1000)), h("td", {}, short(each.rows_per_second)), h("td", { class: "track-cell" }, h("span", { class: "track" }, filled)));
  });
  return h("div", { class: "report" }, h("p", {}, report.signature), h("p", { class: "muted" }, `Loaded in ${duration(report.seconds)} on ${report.device} (${report.why}) by ${ENGINES[report.engine] ?? "its engine"} (${report.why_engine ?? "the only one"}), digest ${report.digest.slice(0, 12)}`),
    h("table", { class: "small" }, h("thead", {}, h("tr", {}, ["rows", "time", "rows/s"].map((name) => h("th", { scope: "col" }, name)), h("td", {}))), h("tbody", {}, rows)));
}
