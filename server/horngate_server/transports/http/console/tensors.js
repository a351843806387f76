// What a signature's tensors are, and how typed text becomes one.

const INTEGERS = /^U?INT(8|16|32|64)$/;
const FLOATS = /^(FP|BF)\d+$/;

export const isFloat = (datatype) => FLOATS.test(datatype);
const hasRows = ({ shape }) => shape.length > 0 && shape[0] === -1;

/** Return what a model takes, if it is one image: {name, datatype, height, width, channels}. */
export function imageInput({ inputs }) {
  if (inputs.length !== 1) return null;
  const [{ name, datatype, shape }] = inputs;
  const [rows, height, width, channels = 1] = shape;
  const fits = (shape.length === 3 || shape.length === 4) && rows === -1 && [1, 3].includes(channels);
  const isPicture = height >= 8 && width >= 8 && height <= 1024 && width <= 1024;
  if (!fits || !isPicture || !(datatype === "UINT8" || isFloat(datatype))) return null;
  return { name, datatype, height, width, channels, shape: [1, ...shape.slice(1)] };
}

/** Return the output that has a number for each class, if there is one. */
export function classesOutput({ outputs }) {
  const fits = ({ datatype, shape }) => isFloat(datatype) && shape.length === 2 && shape[1] > 1 && shape[1] <= 10000;
  const found = outputs.filter(fits);
  return found.find(({ name }) => /prob|score|softmax|pred/i.test(name)) ?? found[0] ?? null;
}

/** Say what a tensor is. */
export function described({ datatype, shape }) {
  const axes = (hasRows({ shape }) ? shape.slice(1) : shape).map((axis) => (axis === -1 ? "any" : axis));
  return axes.length ? `${datatype}, ${axes.join(" × ")}` : datatype;
}

/** Return an example of what may be typed for one row. */
export function example(tensor) {
  const value = tensor.datatype === "BYTES" ? "text" : tensor.datatype === "BOOL" ? true : 0;
  const axes = hasRows(tensor) ? tensor.shape.slice(1) : tensor.shape;
  const nested = axes.reduceRight((inner, axis) => Array.from({ length: axis === -1 ? 1 : axis }, () => inner), value);
  return axes.length === 0 && typeof value === "string" ? "" : JSON.stringify(nested);
}

/** Whether one row of a tensor is one value. */
export const isSingle = (tensor) => (hasRows(tensor) ? tensor.shape.length === 1 : tensor.shape.length === 0);

/** Read what was typed for a tensor; an Error says what was expected. */
export function read(tensor, text) {
  const typed = isSingle(tensor) && tensor.datatype === "BYTES" ? text : parsed(tensor, text);
  const given = shapeOf(typed);
  const expected = tensor.shape.length;
  const shape = hasRows(tensor) && given.length === expected - 1 ? [1, ...given] : given;
  const data = [typed].flat(Infinity);
  if (shape.length !== expected && !(expected === 1 && tensor.shape[0] === -1)) {
    throw new Error(`${tensor.name}: nested ${given.length} deep; expected ${described(tensor)}`);
  }
  const wrong = data.find((value) => !fits(tensor.datatype, value));
  if (wrong !== undefined) throw new Error(`${tensor.name}: ${JSON.stringify(wrong)}; expected ${tensor.datatype}`);
  return { name: tensor.name, datatype: tensor.datatype, shape, data };
}

function parsed({ name }, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${name}: not a number or JSON: ${text.slice(0, 40) || "nothing"}`);
  }
}

function shapeOf(value) {
  return Array.isArray(value) ? [value.length, ...(value.length ? shapeOf(value[0]) : [])] : [];
}

function fits(datatype, value) {
  if (datatype === "BYTES") return typeof value === "string";
  if (datatype === "BOOL") return typeof value === "boolean";
  return typeof value === "number" && (!INTEGERS.test(datatype) || Number.isInteger(value));
}

/** Nest flat data as a shape says. */
export function nested(data, shape) {
  let values = data;
  for (const axis of shape.slice(1).reverse()) {
    if (axis < 1) return [];
    values = Array.from({ length: values.length / axis }, (_, place) => values.slice(place * axis, (place + 1) * axis));
  }
  return shape.length ? values : values[0];
}
