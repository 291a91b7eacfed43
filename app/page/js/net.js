// The service seen from here: requests with the key, failures as sentences, server-sent events.

const KEY = "switchyard.key";
const BASE = new URL(".", document.baseURI);

export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const key = {
  wanted: false,
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

export const url = (path) => new URL(path, BASE).href;

/** A model's path under /admin/models; the slashes of its name stay slashes. */
export const modelPath = (id, action = "") => `admin/models/${encoded(id)}${action && `/${action}`}`;
export const settingsPath = (id) => `admin/settings/${encoded(id)}`;
const encoded = (id) => id.split("/").map(encodeURIComponent).join("/");

/** The response, or a Failure whose message is a sentence for people. */
export async function ask(method, path, { body, signal } = {}) {
  const headers = {};
  const shown = key.get();
  if (shown) headers.authorization = `Bearer ${shown}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(url(path), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The service cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401 && key.get() === shown) { // a key that was changed meanwhile is not the one refused
    key.wanted = true;
    dispatchEvent(new Event("key-wanted"));
  }
  const told = await response.json().catch(() => null);
  throw new Failure(told?.error?.message ?? `The service answered with status ${response.status}.`, response.status);
}

/** The data of each event of a stream, as text, until the stream ends. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      waiting += value;
      const frames = waiting.split("\n\n");
      waiting = frames.pop();
      for (const frame of frames) {
        const data = frame.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim());
        if (data.length) yield data.join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The JSON values of a stream up to its [DONE]; a stream that is cut, or tells of a failure, is a Failure. */
export async function* values(response) {
  try {
    for await (const data of events(response)) {
      if (data === "[DONE]") return;
      const value = JSON.parse(data);
      if (value.error) throw new Failure(value.error.message);
      yield value;
    }
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
  }
  throw new Failure("The connection was cut before the answer was complete.");
}
