// What the console needs of TensorFlow.js: graph models, computed by WebAssembly.

export { dispose, getBackend, ready, tensor } from "@tensorflow/tfjs-core";
export { loadGraphModel } from "@tensorflow/tfjs-converter";

import { setBackend } from "@tensorflow/tfjs-core";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";

setWasmPaths("/console/");
setBackend("wasm");
