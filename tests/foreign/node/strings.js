// A Node.js caller of models that take or return strings: @grpc/grpc-js and the project's .proto file.
//
//     node strings.js HOST:PORT PROTOS TEXT...
//
// Prints what came back as JSON; the test that runs it compares.
"use strict";

const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos, ...texts] = process.argv.slice(2);
const definition = loader.loadSync("horngate_protos/open_inference.proto", { includeDirs: [protos], keepCase: true });
const { inference } = grpc.loadPackageDefinition(definition);
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());
const infer = (request) =>
  new Promise((resolve, reject) =>
    client.ModelInfer(request, (error, answer) => (error ? reject(error) : resolve(answer))),
  );

const strings = texts.map((text) => Buffer.from(text));
// Raw, each string comes behind its length, four bytes and little-endian.
const packed = Buffer.concat(
  strings.flatMap((bytes) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    return [length, bytes];
  }),
);

(async () => {
  const reviews = await infer({
    model_name: "reviews",
    inputs: [{ name: "text", datatype: "BYTES", shape: [texts.length, 1], contents: { bytes_contents: strings } }],
  });
  const words = await infer({
    model_name: "words",
    inputs: [{ name: "word", datatype: "BYTES", shape: [texts.length] }],
    outputs: [{ name: "same" }],
    raw_input_contents: [packed],
  });
  console.log(
    JSON.stringify({
      scores: reviews.outputs[0].contents.fp32_contents,
      same: words.raw_output_contents[0].equals(packed),
    }),
  );
})();
