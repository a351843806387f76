// What TF.js answers in Node: predict.js MODEL_FOLDER INPUTS.json. The answers are JSON on stdout.
const fs = require("node:fs");
const path = require("node:path");
const tf = require("@tensorflow/tfjs");

const [folder, file] = process.argv.slice(2);

async function load() {
  const model = JSON.parse(fs.readFileSync(path.join(folder, "model.json")));
  const [{ paths, weights }] = model.weightsManifest;
  const data = Buffer.concat(paths.map((each) => fs.readFileSync(path.join(folder, each))));
  return tf.loadGraphModel(
    tf.io.fromMemory({
      ...model,
      weightSpecs: weights,
      weightData: data.buffer.slice(data.byteOffset, data.byteOffset + data.length),
    }),
  );
}

async function main() {
  const model = await load();
  const inputs = {};
  for (const [name, { data, shape, dtype }] of Object.entries(JSON.parse(fs.readFileSync(file)))) {
    inputs[name] = tf.tensor(data, shape, dtype);
  }
  const answers = {};
  for (const [name, tensor] of Object.entries(await model.predictAsync(inputs))) {
    answers[name] = { dtype: tensor.dtype, shape: tensor.shape, data: Array.from(await tensor.data()) };
  }
  console.log(JSON.stringify(answers));
}

main();
