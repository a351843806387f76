// The same call, for people to copy.

import { copyButton, h } from "./dom.js";
import { modelPath } from "./api.js";

const CONTENTS = {
  BOOL: "bool_contents", INT8: "int_contents", INT16: "int_contents", INT32: "int_contents", INT64: "int64_contents",
  UINT8: "uint_contents", UINT16: "uint_contents", UINT32: "uint_contents", UINT64: "uint64_contents",
  FP32: "fp32_contents", FP64: "fp64_contents", BYTES: "bytes_contents",
};

const LANGUAGES = { Python: python, curl, Node: node, "buf curl": bufCurl };

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const address = (shown) => location.origin + modelPath(shown.name, shown.version) + "/infer";

function python(shown, body) {
  const literals = JSON.stringify(body.inputs.map(({ name, shape, datatype, data }) => ({ name, shape, datatype, data })));
  return `import json
import urllib.request

inputs = json.loads(${JSON.stringify(literals)})
request = urllib.request.Request(
    ${JSON.stringify(address(shown))},
    json.dumps({"inputs": inputs}).encode(),
    {"content-type": "application/json"},  # and "authorization": "Bearer ...", where the server asks for a token
)
with urllib.request.urlopen(request) as response:
    for output in json.load(response)["outputs"]:
        print(output["name"], output["shape"], output["data"])
`;
}

function curl(shown, body) {
  return `curl -s ${quoted(address(shown))} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify({ inputs: body.inputs }))}\n`;
}

function node(shown, body) {
  return `const response = await fetch(${JSON.stringify(address(shown))}, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ inputs: ${JSON.stringify(body.inputs)} }),
});
const { outputs, error } = await response.json();
console.log(error ?? outputs);
`;
}

function bufCurl(shown, body) {
  const bytes = (data) => data.map((each) => btoa(String.fromCharCode(...new TextEncoder().encode(each))));
  const inputs = body.inputs.map(({ name, datatype, shape, data }) => {
    const kind = CONTENTS[datatype];
    return { name, datatype, shape, contents: kind ? { [kind]: datatype === "BYTES" ? bytes(data) : data } : {} };
  });
  const request = { model_name: shown.name, ...(shown.version && { model_version: shown.version }), inputs };
  return `# 8001 is the gRPC port by default; the server's first log lines have it
buf curl --protocol grpc --http2-prior-knowledge \\
  -d ${quoted(JSON.stringify(request))} \\
  http://${location.hostname}:8001/inference.GRPCInferenceService/ModelInfer
`;
}

export class Snippets {
  constructor() {
    this.text = h("code", {});
    this.tabs = Object.keys(LANGUAGES).map((name, place) =>
      h("button", { type: "button", role: "tab", id: `tab-${place}`, "aria-controls": "snippet", onclick: () => this.choose(name), onkeydown: (event) => this.onKey(event) }, name));
    const list = h("div", { class: "tabs" }, h("div", { role: "tablist", "aria-label": "Language" }, this.tabs), copyButton(() => this.text.textContent));
    this.panel = h("pre", { id: "snippet", role: "tabpanel", tabindex: "0" }, this.text);
    this.element = h("details", { class: "card snippets", ontoggle: () => this.write() }, h("summary", {}, "The same call as code"), list, this.panel);
    this.choose("Python");
  }

  choose(language) {
    this.language = language;
    for (const tab of this.tabs) {
      const isChosen = tab.textContent === language;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
      if (isChosen) this.panel.setAttribute("aria-labelledby", tab.id);
    }
    this.write();
  }

  onKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const place = (this.tabs.indexOf(event.target) + step + this.tabs.length) % this.tabs.length;
    this.choose(this.tabs[place].textContent);
    this.tabs[place].focus();
  }

  /** Show a call. */
  show(shown, body) {
    this.call = [shown, body];
    this.write();
  }

  write() {
    if (this.call && this.element.open) this.text.textContent = LANGUAGES[this.language](...this.call);
  }
}
