// "Watch it": what the last two minutes were like, from /metrics, looked at once a second. Nothing is stored.

import { columns, lines, meter, STEPS } from "./charts.js";
import { bytes, duration, h, percent, short } from "./dom.js";
import { buckets, growth, quantile, select, sum, sumBy } from "./metrics.js";

const WINDOW = 10;
const HELP = {
  queue_full: "ask less at once, retry later, or give it more replicas (--queue-rows bounds the wait)",
  deadline: "allow more time, or smaller requests: the queue was longer than the caller would wait",
  not_ready: "wait for the model to be loaded; see Versions",
  cancelled: "the callers gave up before they were answered",
  unauthenticated: "send authorization: Bearer TOKEN, one that stands in --tokens",
  forbidden: "use a token with admin",
  client_limit: "wait for this client's other requests (--max-client-requests, --max-client-bytes)",
  malformed_http: "something that is no HTTP came to the HTTP port",
};

export class Watch {
  constructor(body) {
    this.cards = Object.fromEntries(
      ["Requests", "Latency", "Batches", "Queue", "Predictions", "Memory", "Shadow", "Errors"].map((name) => [name, card(name)]),
    );
    body.replaceChildren(h("div", { class: "grid" }, Object.values(this.cards).map(({ element }) => element)));
    this.cards.Errors.element.classList.add("wide");
    this.reset();
  }

  /** Forget what was, as it was another model's. */
  reset() {
    this.looks = [];
    this.history = { rate: [], p50: [], p99: [], queue: [], memory: [] };
  }

  /** Take a look at the metrics. */
  take(now, metrics, shown, models) {
    this.looks.push({ now, metrics });
    while (this.looks.length > WINDOW + 1) this.looks.shift();
    const model = { model: shown.name };
    const version = { ...model, version: shown.serving };
    const [before, first] = [this.looks.at(-2) ?? this.looks[0], this.looks[0]];
    const windowed = (name, wanted = model) => buckets(metrics, first.metrics, name, wanted);
    this.requests(metrics, before, now - before.now, model);
    this.latency(windowed);
    this.batches(windowed("horngate_batch_rows"));
    this.queue(metrics, version);
    this.predictions(metrics, version);
    this.memory(metrics, models);
    this.shadow(metrics, model);
    this.errors(metrics, model);
  }

  requests(metrics, before, seconds, model) {
    const total = sumBy(metrics, "horngate_requests_total", "code", model);
    const grown = [...growth(total, sumBy(before.metrics, "horngate_requests_total", "code", model)).values()];
    const rate = seconds > 0 ? grown.reduce((all, each) => all + each, 0) / seconds : NaN;
    keep(this.history.rate, rate);
    const all = [...total.values()].reduce((sum, each) => sum + each, 0);
    this.cards.Requests.show(short(Number.isFinite(rate) ? Math.round(rate * 10) / 10 : NaN), "a second",
      lines([{ values: this.history.rate, class: "one" }], `Requests a second over the last two minutes; now ${short(rate)}`),
      facts([["in all", short(all)], ["in flight, all models", short(sum(metrics, "horngate_requests_in_flight"))]]));
  }

  latency(windowed) {
    const at = (name) => {
      const histogram = windowed(name);
      return [quantile(histogram, 0.5), quantile(histogram, 0.99)];
    };
    const whole = at("horngate_request_seconds");
    const rows = [["whole", whole], ["queue", at("horngate_queue_seconds")], ["compute", at("horngate_batch_seconds")]];
    keep(this.history.p50, whole[0]);
    keep(this.history.p99, whole[1]);
    this.cards.Latency.show(duration(whole[1]), "p99, last 10 s",
      lines([{ values: this.history.p99, class: "two" }, { values: this.history.p50, class: "one" }],
        `Latency: median ${duration(whole[0])}, 99th percentile ${duration(whole[1])}`),
      h("table", { class: "small" },
        h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "p50"), h("th", { scope: "col" }, "p99"))),
        h("tbody", {}, rows.map(([name, [p50, p99]]) =>
          h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, duration(p50)), h("td", {}, duration(p99)))))));
  }

  batches(histogram) {
    const finite = histogram.filter(([bound]) => Number.isFinite(bound));
    const last = finite.findLastIndex(([, count]) => count > 0);
    const items = finite.slice(0, Math.max(last + 2, 8)).map(([bound, value]) => ({ name: short(bound), value }));
    const count = histogram.reduce((total, [, each]) => total + each, 0);
    this.cards.Batches.show(short(count), "in the last 10 s",
      items.length ? columns(items, `Batches by their rows: ${items.filter(({ value }) => value).map(({ name, value }) => `${value} of up to ${name}`).join(", ") || "none"}`) : null,
      h("p", { class: "muted" }, "by rows: what comes while a batch computes forms the next one"));
  }

  queue(metrics, version) {
    const waiting = sumBy(metrics, "horngate_queue_rows", "priority", version);
    const rows = [...waiting.values()].reduce((total, each) => total + each, 0);
    const capacity = sum(metrics, "horngate_queue_capacity_rows", version);
    keep(this.history.queue, rows);
    this.cards.Queue.show(short(rows), `of ${short(capacity)} rows wait`,
      lines([{ values: this.history.queue, class: "one" }], `Rows that waited over the last two minutes; now ${rows}`),
      meter(rows, capacity, "Queue, of its capacity"),
      facts([...waiting].map(([priority, value]) => [priority, short(value)])));
  }

  predictions(metrics, version) {
    const classes = sumBy(metrics, "horngate_predicted_class_total", "class", version);
    const { Predictions } = this.cards;
    const seen = [...classes.values()].reduce((total, each) => total + each, 0);
    Predictions.element.hidden = !classes.size;
    if (!classes.size) return;
    const one = (name) => select(metrics, name, version)[0]?.[1] ?? NaN;
    const psi = one("horngate_prediction_psi");
    const suspects = select(metrics, "horngate_input_suspect", version).filter(([, value]) => value).map(([labels]) => labels.as);
    const items = [...classes].slice(0, 20).map(([name, value]) => ({ name, value }));
    const beside = (now, was, write) => `${write(one(now))}, baseline ${write(one(was))}`;
    Predictions.show(short(seen), "rows by the class chosen", columns(items, `Rows by class: ${items.map(({ name, value }) => `${name}: ${value}`).join(", ")}`),
      facts([
        ["confidence", beside("horngate_prediction_confidence_mean", "horngate_baseline_confidence_mean", percent)],
        ["mean input", beside("horngate_input_mean", "horngate_baseline_input_mean", short)],
        ["drift (PSI)", Number.isFinite(psi) ? `${short(psi)}${psi > 0.25 ? ": a lot" : ""}` : "not enough rows yet"],
        ...(suspects.length ? [["inputs look", suspects.join(", ")]] : []),
      ]));
  }

  memory(metrics, models) {
    const resident = sum(metrics, "process_resident_memory_bytes");
    keep(this.history.memory, resident);
    const loaded = models.filter((each) => each.state === "ready" && each.report);
    this.cards.Memory.show(bytes(resident), "of the server",
      lines([{ values: this.history.memory, class: "one" }], `Memory over the last two minutes; now ${bytes(resident)}`),
      facts(loaded.slice(0, 6).map((each) => [`${each.name} ${each.version}, when loaded`, bytes(each.report.memory_bytes)])));
  }

  shadow(metrics, model) {
    const rows = sum(metrics, "horngate_shadow_rows_total", model);
    this.cards.Shadow.element.hidden = !select(metrics, "horngate_shadow_rows_total", model).length;
    const [agreed, seconds, live] = ["agreed_rows", "seconds", "live_seconds"].map((name) => sum(metrics, `horngate_shadow_${name}_total`, model));
    this.cards.Shadow.show(rows ? percent(agreed / rows) : "–", "agree with the version that answers",
      facts([["rows", short(rows)], ["its time beside the other's", live ? `${short(seconds / live)} ×` : "–"]]));
  }

  errors(metrics, model) {
    const codes = [...sumBy(metrics, "horngate_requests_total", "code", model)].filter(([code, count]) => code !== "OK" && count);
    const reasons = [...sumBy(metrics, "horngate_refused_total", "reason")].filter(([, count]) => count);
    const all = codes.reduce((total, [, count]) => total + count, 0);
    const refused = reasons.map(([reason, count]) =>
      h("li", {}, h("b", {}, `${short(count)} × ${reason.replaceAll("_", " ")}`), HELP[reason] ? `: ${HELP[reason]}` : ""));
    this.cards.Errors.show(short(all), "requests failed, since the start", facts(codes.map(([code, count]) => [code, short(count)])),
      refused.length ? h("div", {}, h("h4", {}, "Refused, all models"), h("ul", { class: "refusals" }, refused)) : h("p", { class: "muted" }, "Nothing was refused."));
  }
}

function card(name) {
  const value = h("b", { class: "number" }, "–");
  const unit = h("span", { class: "muted" });
  const body = h("div", { class: "card-body" });
  const element = h("article", { class: "card", "aria-label": name }, h("h3", {}, name), h("p", { class: "figure" }, value, " ", unit), body);
  return {
    element,
    show(text, of, ...children) {
      value.textContent = text;
      unit.textContent = of;
      body.replaceChildren(...children.filter(Boolean));
    },
  };
}

const facts = (pairs) => pairs.length ? h("dl", { class: "facts" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))) : null;

function keep(values, value) {
  values.push(value);
  if (values.length > STEPS) values.shift();
}
