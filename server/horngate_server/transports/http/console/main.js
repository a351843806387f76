// The page: who may see it, which model it is about, and its three parts.

import { getJson, getText, hasToken, modelPath, Refused, setToken } from "./api.js";
import { age, by, h } from "./dom.js";
import { parse } from "./metrics.js";
import { startTheme } from "./theme.js";
import { Trial } from "./trial.js";
import { Versions } from "./versions.js";
import { Watch } from "./watch.js";

const EVERY_MS = 1000;
const STATES_EVERY = 3; // looks: versions change seldom

const trial = new Trial(by("try-body"));
const watch = new Watch(by("watch-body"));
const versions = new Versions(by("versions-body"), by("dialog"), lookAnew);
let shown = { name: "", version: "", serving: "" };
let models = [];
let timer = 0;
let looking = false;
let looks = 0;
let isStale = false;

startTheme(by("theme"));
by("sign-in").addEventListener("submit", signIn);
by("model").addEventListener("change", () => choose(by("model").value, ""));
by("version").addEventListener("change", () => choose(shown.name, by("version").value));
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
open();

/** Show everything, or ask for a token. */
async function open() {
  try {
    const server = await getJson("/v2");
    versions.allow(server.extensions.includes("model_repository"), hasToken());
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) {
      say(`The server cannot be reached: ${error.message}`);
      timer = setTimeout(open, EVERY_MS);
      return false;
    }
    by("sign-in").hidden = false;
    by("token").focus();
    return false;
  }
  say("");
  by("sign-in").hidden = true;
  by("content").hidden = by("sections").hidden = false;
  await look();
  return true;
}

async function signIn(event) {
  event.preventDefault();
  setToken(by("token").value.trim());
  by("sign-in-error").textContent = "";
  if (await open()) {
    by("token").value = "";
    by("main").focus();
  } else {
    setToken("");
    by("sign-in-error").textContent = "This token is not known here.";
  }
}

/** Look at the server once, and again in a second while somebody looks at the page. */
async function look() {
  clearTimeout(timer);
  if (looking) return;
  looking = true;
  try {
    if (isStale || looks % STATES_EVERY === 0) {
      isStale = false;
      models = await getJson("/models");
    }
    looks += 1;
    const metrics = parse(await getText("/metrics"));
    await follow();
    const ready = models.filter((each) => each.state === "ready").length;
    health("good", ready ? `${ready} ${ready === 1 ? "version serves" : "versions serve"}` : "no version serves yet");
    watch.take(performance.now() / 1000, metrics, shown, models);
    versions.show(models, metrics, shown.name);
  } catch (error) {
    health("bad", "no answer");
    if (!(error instanceof TypeError)) say(error.message);
  } finally {
    looking = false;
  }
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

/** Look at the versions, too, as one of them has changed. */
async function lookAnew() {
  isStale = true;
  await look();
}

/** Keep to the chosen model; take the first where there is none yet, or it has gone. */
async function follow() {
  const names = [...new Set(models.filter((each) => each.state === "ready").map((each) => each.name))];
  options(by("model"), names.map((name) => [name, name]), shown.name);
  if (!names.length) {
    by("title").textContent = "No model serves yet";
    by("about").textContent = "It waits for a SavedModel in the folder of --models.";
  } else if (names.includes(shown.name)) {
    const ready = models.filter((each) => each.name === shown.name && each.state === "ready");
    const isThere = !shown.version || ready.some((each) => String(each.version) === shown.version);
    const serving = ready.find((each) => each.labels.includes(""));
    const hasMoved = !shown.version && serving && String(serving.version) !== shown.serving;
    if (!isThere || hasMoved) await choose(shown.name, "");
    else describe();
  } else await choose(names[0], "");
}

/** Show another model or version. */
async function choose(name, version) {
  try {
    const metadata = await getJson(modelPath(name, version));
    const ready = models.filter((each) => each.name === name && each.state === "ready");
    const serving = version || String((ready.find((each) => each.labels.includes("")) ?? ready[0])?.version ?? "");
    shown = { name, version, serving };
    const state = ready.find((each) => String(each.version) === serving);
    describe();
    const signatures = (metadata.signatures ?? []).map((each) => each.name);
    trial.show(metadata, shown, [...signatures, ...Object.keys(state?.report?.signatures ?? {})]);
    watch.reset();
    say("");
  } catch (error) {
    say(error.message);
  }
}

function describe() {
  const ready = models.filter((each) => each.name === shown.name && each.state === "ready");
  const state = ready.find((each) => String(each.version) === shown.serving);
  const labels = (each) => each.labels.filter(Boolean).map((label) => `, ${label}`).join("");
  const numbers = ready.map((each) => [String(each.version), `${each.version}${labels(each)}`]);
  options(by("model"), [...by("model").options].map((each) => [each.value, each.text]), shown.name);
  options(by("version"), [["", "as served by default"], ...numbers], shown.version);
  by("title").textContent = shown.name;
  const report = state?.report;
  by("about").textContent = report
    ? `Version ${state.version} on ${report.device}, ${report.verification.split(":")[0]}, up for ${age(state.age_seconds)}`
    : "";
}

function options(select, pairs, chosen) {
  const wanted = JSON.stringify(pairs);
  if (select.dataset.pairs !== wanted) {
    select.replaceChildren(...pairs.map(([value, text]) => h("option", { value }, text)));
    select.dataset.pairs = wanted;
  }
  if (select.value !== chosen) select.value = chosen;
}

function health(how, text) {
  const at = by("health");
  at.dataset.state = how;
  if (at.textContent !== text) at.textContent = text;
}

function say(text) {
  by("notice").textContent = text;
}
