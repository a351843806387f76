// A Node.js caller: @grpc/grpc-js and the project's .proto files, nothing of Horngate's code.
//
//     node client.js HOST:PORT PROTOS IMAGE     (a file with the bytes of one image)
//
// Prints what came back as JSON; the test that runs it compares.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos, file] = process.argv.slice(2);
const definition = loader.loadSync(
  ["horngate_protos/open_inference.proto", "horngate_protos/tensorflow_serving.proto"],
  { includeDirs: [protos], keepCase: true, longs: Number },
);
const services = grpc.loadPackageDefinition(definition);
const inference = new services.inference.GRPCInferenceService(address, grpc.credentials.createInsecure());
const prediction = new services.tensorflow.serving.PredictionService(address, grpc.credentials.createInsecure());
const image = fs.readFileSync(file);

const call = (client, method, request, options = {}) =>
  new Promise((resolve, reject) =>
    client[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer))),
  );
const failure = async (client, method, request, options) => {
  try {
    await call(client, method, request, options);
    return ["OK", ""];
  } catch (error) {
    return [grpc.status[error.code], error.details];
  }
};
const infer = (changes = {}, input = {}) => ({
  model_name: "mnist",
  inputs: [{ name: "images", datatype: "UINT8", shape: [1, 28, 28], ...input }],
  raw_input_contents: [image],
  ...changes,
});
const raw = (answer, name) =>
  answer.raw_output_contents[answer.outputs.findIndex((output) => output.name === name)].toString("hex");

// Requests in one stream, a wrong one among them; the answers in their order. The first is answered before the others
// are sent: computed alone, it has the same bits as outside of a stream.
const streamed = ([first, ...others]) =>
  new Promise((resolve, reject) => {
    const answers = [];
    const stream = inference.ModelStreamInfer();
    stream.on("data", (answer) => {
      if (answers.push(answer) === 1) {
        others.forEach((request) => stream.write(request));
        stream.end();
      }
    });
    stream.on("error", reject);
    stream.on("end", () => resolve(answers));
    stream.write(first);
  });

(async () => {
  const answer = await call(inference, "ModelInfer", infer({ id: "n-1" }));
  const typed = await call(
    inference,
    "ModelInfer",
    infer({ raw_input_contents: [] }, { contents: { uint_contents: [...image] } }),
  );
  const floats = Buffer.alloc(40);
  const probabilities = typed.outputs.find((output) => output.name === "probabilities");
  probabilities.contents.fp32_contents.forEach((value, index) => floats.writeFloatLE(value, 4 * index));
  const tensor = { dtype: 4, tensor_shape: { dim: [{ size: 1 }, { size: 28 }, { size: 28 }] }, tensor_content: image };
  const predicted = await call(prediction, "Predict", { model_spec: { name: "mnist" }, inputs: { images: tensor } });
  const stream = await streamed([infer({ id: "a" }), infer({ id: "b", model_name: "nope" }), infer({ id: "c" })]);
  const metadata = await call(inference, "ModelMetadata", { name: "mnist" });
  const result = {
    id: answer.id,
    probabilities: raw(answer, "probabilities"),
    typed: floats.toString("hex"),
    predicted: predicted.outputs.probabilities.tensor_content.toString("hex"),
    streamed: stream.map((each) => [
      each.infer_response && each.infer_response.id,
      each.error_message,
      each.error_message ? "" : raw(each.infer_response, "probabilities"),
    ]),
    shape: metadata.inputs[0].shape,
    errors: {
      "unknown model": await failure(inference, "ModelInfer", infer({ model_name: "nope" })),
      "unknown version": await failure(inference, "ModelInfer", infer({ model_version: "99" })),
      "wrong input": await failure(inference, "ModelInfer", infer({}, { name: "pixels" })),
      "wrong shape": await failure(inference, "ModelInfer", infer({}, { shape: [1, 28, 27] })),
      "wrong datatype": await failure(inference, "ModelInfer", infer({}, { datatype: "FP32" })),
      "short data": await failure(inference, "ModelInfer", infer({ raw_input_contents: [image.subarray(1)] })),
      "expired": await failure(inference, "ModelInfer", infer(), { deadline: Date.now() - 1 }),
      "unknown signature": await failure(prediction, "Predict", {
        model_spec: { name: "mnist", signature_name: "nope" },
        inputs: { images: tensor },
      }),
    },
  };
  console.log(JSON.stringify(result));
  inference.close();
  prediction.close();
})();
