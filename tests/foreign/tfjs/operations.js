// Which of TensorFlow's operations TF.js knows: operations.js NAMES.json. They are JSON on stdout.
const fs = require("node:fs");
const tf = require("@tensorflow/tfjs");

async function main() {
  const names = JSON.parse(fs.readFileSync(process.argv[2]));
  const modelTopology = {
    node: names.map((op) => ({ name: op, op, input: [] })),
    versions: { producer: 1, minConsumer: 1 },
  };
  const signature = { outputs: { any: { name: `${names[0]}:0` } } };
  const nothing = { weightSpecs: [], weightData: new ArrayBuffer(0), format: "graph-model" };
  const model = await tf.loadGraphModel(tf.io.fromMemory({ modelTopology, signature, ...nothing }));
  console.log(JSON.stringify(names.filter((name) => model.executor.graph.nodes[name].category)));
}

main();
