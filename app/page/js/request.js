// From what the form holds to a request's body, and to the same request as curl or Python.
import { url } from "./net.js";

export const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1, note: "0 takes the likeliest token" },
  { name: "max_tokens", label: "Max tokens", min: 1, step: 1, note: "where the answer is cut" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.05, more: true },
  { name: "top_k", label: "Top k", min: 0, step: 1, more: true },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01, more: true },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.1, step: 0.05, more: true },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1, more: true, left: "0" },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1, more: true, left: "0" },
  { name: "seed", label: "Seed", step: 1, more: true, left: "random" },
];
const EXTRA = new Set(["top_k", "min_p", "repetition_penalty"]); // not among the OpenAI client's own arguments

/** What a request says of numbers, and the settings in force for all that it leaves open. */
export function settled(form, settings) {
  const asked = NUMBERS.filter(({ name }) => form[name] !== undefined && form[name] !== "");
  const said = new Map(asked.map(({ name }) => [name, { name, value: form[name], words: "", origin: "this request" }]));
  const rest = (form.mode === "chat" ? settings?.chat : settings?.completion) ?? [];
  const names = new Set(rest.map((it) => it.name));
  return [...rest.map((it) => said.get(it.name) ?? it), ...[...said.values()].filter((it) => !names.has(it.name))];
}

export const EMPTY = { model: "", mode: "chat", system: "", stop: "", format: "text", schema: "", tools: "" };

/** The form, with a temperature of 0 for the small embedded model where none was entered: drawn freely it rambles. */
export function filled(form, live) {
  const id = form.model.trim() || live.service?.default_model;
  const model = live.models.find((it) => it.id === id || it.aliases.includes(id));
  return model?.source === "embedded" && form.temperature === undefined ? { ...form, temperature: "0" } : form;
}

/** The body; raises an Error with a sentence if a JSON field does not hold JSON. */
export function body(form, turns, prompt) {
  const made = {};
  if (form.model.trim()) made.model = form.model.trim();
  if (form.mode === "chat") {
    const system = form.system.trim() ? [{ role: "system", content: form.system }] : [];
    made.messages = [...system, ...turns, ...(prompt === null ? [] : [{ role: "user", content: prompt }])];
    if (form.format === "json_object") made.response_format = { type: "json_object" };
    if (form.format === "json_schema") {
      const schema = parsed(form.schema, "The JSON schema");
      made.response_format = { type: "json_schema", json_schema: { name: "answer", strict: true, schema } };
    }
    if (form.tools.trim()) made.tools = parsed(form.tools, "The list of tools");
  } else {
    made.prompt = prompt ?? "";
  }
  for (const { name } of NUMBERS) if (form[name] !== undefined && form[name] !== "") made[name] = Number(form[name]);
  const stop = form.stop.split("\n").filter(Boolean);
  if (stop.length) made.stop = stop;
  return made;
}

export const path = (form) => (form.mode === "chat" ? "v1/chat/completions" : "v1/completions");

function parsed(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${what} is not valid JSON: ${error.message}`);
  }
}

export function curl(form, made, withKey) {
  const data = JSON.stringify({ ...made, stream: true }, null, 2).replaceAll("'", "'\\''");
  const header = withKey ? ` \\\n  -H "Authorization: Bearer $SWITCHYARD_KEY"` : "";
  return `curl -N ${url(path(form))} \\\n  -H 'Content-Type: application/json'${header} \\\n  -d '${data}'\n`;
}

export function python(form, made, withKey) {
  const own = Object.entries(made).filter(([name]) => !EXTRA.has(name));
  const extra = Object.fromEntries(Object.entries(made).filter(([name]) => EXTRA.has(name)));
  if (!made.model) own.unshift(["model", "default"]);
  const lines = own.map(([name, value]) => `    ${name}=${literal(value, "    ")},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${literal(extra, "    ")},`);
  const [call, piece] =
    form.mode === "chat"
      ? ["chat.completions", 'chunk.choices[0].delta.content or ""']
      : ["completions", "chunk.choices[0].text"];
  const start = withKey ? 'import os\n\nfrom openai import OpenAI\n\n' : "from openai import OpenAI\n\n";
  const secret = withKey ? 'os.environ["SWITCHYARD_KEY"]' : '"none"';
  return (
    `${start}client = OpenAI(base_url="${url("v1")}", api_key=${secret})\nstream = client.${call}.create(\n` +
    `${lines.join("\n")}\n    stream=True,\n)\nfor chunk in stream:\n    if chunk.choices:\n` +
    `        print(${piece}, end="", flush=True)\nprint()\n`
  );
}

/** A JSON value as Python writes it. */
function literal(value, indent) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string" || typeof value === "number") return JSON.stringify(value);
  const inner = `${indent}    `;
  const [open, close, parts] = Array.isArray(value)
    ? ["[", "]", value.map((item) => literal(item, inner))]
    : ["{", "}", Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, inner)}`)];
  const flat = `${open}${parts.join(", ")}${close}`;
  return flat.length < 80 ? flat : `${open}\n${parts.map((part) => inner + part).join(",\n")},\n${indent}${close}`;
}
