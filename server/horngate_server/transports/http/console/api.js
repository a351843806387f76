// What the page asks the server. The token is in this module's memory alone.

let token = "";

/** An answer that is no success. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const setToken = (given) => (token = given);
export const hasToken = () => token !== "";
export const headers = () => (token ? { authorization: `Bearer ${token}` } : {});

/** The path of a model, or of one of its versions. */
export function modelPath(name, version) {
  const path = `/v2/models/${encodeURIComponent(name)}`;
  return version ? `${path}/versions/${encodeURIComponent(version)}` : path;
}

export const getText = async (path) => (await ask(path)).text();
export const getJson = async (path) => (await ask(path)).json();

/** Send JSON by POST; return the answer and the seconds that it took. */
export async function post(path, body) {
  const began = performance.now();
  const answer = await ask(path, {
    method: "POST",
    headers: { ...headers(), "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const json = await answer.json();
  return { answer: json, seconds: (performance.now() - began) / 1000 };
}

async function ask(path, options = { headers: headers() }) {
  const answer = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text.trim();
  try {
    message = JSON.parse(text).error ?? message;
  } catch {
    // not JSON: the text is the sentence
  }
  throw new Refused(answer.status, message || `the server answered ${answer.status}`);
}
