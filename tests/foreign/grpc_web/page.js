// A page that calls the server by gRPC-Web: @connectrpc/connect-web and the project's .proto files, nothing of Horngate's
// code. Each function takes the server's address and a token, and returns what came, as JSON can hold it.
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
const contract = createFileRegistry(fromBinary(FileDescriptorSetSchema, await bytes("/contract.binpb")));

const client = (service, baseUrl) =>
  createClient(contract.getService(service), createGrpcWebTransport({ baseUrl }));
const inference = (address) => client("inference.GRPCInferenceService", address);
const by = (token) => ({ headers: token ? { authorization: `Bearer ${token}` } : {} });

export async function metadata(address, token) {
  const { name, inputs } = await inference(address).modelMetadata({ name: "mnist" }, by(token));
  return { name, inputs: inputs.map(({ name, datatype, shape }) => [name, datatype, shape.map(Number)]) };
}

export async function infer(address, token) {
  const images = await bytes("/images");
  const answer = await inference(address).modelInfer(
    {
      modelName: "mnist",
      inputs: [{ name: "images", datatype: "UINT8", shape: [images.length / 784, 28, 28].map(BigInt) }],
      rawInputContents: [images],
    },
    by(token),
  );
  const raw = answer.rawOutputContents[answer.outputs.findIndex(({ name }) => name === "probabilities")];
  return Array.from(new Float32Array(raw.slice().buffer));
}

export async function failure(address, token) {
  try {
    await inference(address).modelMetadata({ name: "nope" }, by(token));
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    return [Code[code], rawMessage];
  }
}

export async function watch(address) {
  for await (const { status } of client("grpc.health.v1.Health", address).watch({ service: "mnist" })) {
    return status;
  }
}
