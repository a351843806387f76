// Node.js by gRPC: a PNG in, a digit out.    npm install, then: node classify.js HOST:PORT PROTOS IMAGE
// PROTOS is the folder protos/ of this repository: the .proto files are read as they are, no code is generated.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { PNG } = require("pngjs");

const [address, protos, file] = process.argv.slice(2);
const definition = loader.loadSync("horngate_protos/open_inference.proto", { includeDirs: [protos], keepCase: true });
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
const client = new GRPCInferenceService(address, grpc.credentials.createInsecure());

const image = PNG.sync.read(fs.readFileSync(file)); // red, green, blue, alpha
const pixels = Buffer.from(image.data.filter((_, at) => at % 4 === 0)); // of a grey image, all colours are alike

const request = {
  model_name: "mnist",
  inputs: [{ name: "images", datatype: "UINT8", shape: [1, image.height, image.width] }],
  raw_input_contents: [pixels],
};
client.ModelInfer(request, { deadline: Date.now() + 10_000 }, (error, answer) => {
  if (error) throw error;
  const place = answer.outputs.findIndex((output) => output.name === "classes");
  console.log(String(answer.raw_output_contents[place].readBigInt64LE()));
  client.close();
});
