// A model's settings in force, and where each of them is written: asked for when they are looked at.
import { html, useEffect, useState } from "./html.js";
import { ask, settingsPath } from "./net.js";

const NONE = { id: null, settings: null, failure: "" };
const NAMES = {
  temperature: "Temperature", top_p: "Top p", top_k: "Top k", min_p: "Min p", repetition_penalty: "Repetition penalty",
  max_tokens: "Max tokens", enable_thinking: "Thinking", thinking_budget: "Thinking budget", tool_prompt: "Tools are told",
  context_length: "Context", keep_alive: "Stays when unused", quantize: "Weights quantised to", kv_bits: "KV cache bits",
  draft_model: "Draft model", dtype: "Type of weights", max_choices: "Most choices", max_batch_rows: "Rows in a batch",
  prefill_slice: "Prefill slice", prefix_cache: "Prefix cache", disk_cache: "Prefixes on disk", pin: "Pinned",
  revision: "Revision", adapter: "Adapter", pooling: "Pooling", ranks: "Ranks", hosts: "Hosts",
  presence_penalty: "Presence penalty", frequency_penalty: "Frequency penalty", seed: "Seed",
};

/** What the service tells of a model; asked for again when its `state` is another. No id: nothing. */
export function useSettings(id, state) {
  const [told, set] = useState(NONE);
  useEffect(() => {
    if (!id) return undefined;
    const leaving = new AbortController();
    const read = async () => (await ask("GET", settingsPath(id), { signal: leaving.signal })).json();
    read().then(
      (settings) => set({ id, settings, failure: "" }),
      (error) => error.name === "AbortError" || set({ id, settings: null, failure: error.message }),
    );
    return () => leaving.abort();
  }, [id, state]);
  return told.id === id ? told : NONE;
}

/** A value as people read it. */
export const shown = (setting) => setting.words || String(setting.value);

export function SettingsTable({ title, settings }) {
  return html`<table class="in-force" aria-label=${`${title}: settings in force`}>
    <thead><tr><th scope="col">${title}</th><th scope="col">In force</th><th scope="col">From</th></tr></thead>
    <tbody>${settings.map((it) => html`<tr key=${it.name}>
      <th scope="row" title=${it.name}>${NAMES[it.name] ?? it.name}</th>
      <td>${shown(it)}</td>
      <td class=${it.origin === "default" ? "muted" : "origin"}>${it.origin}</td>
    </tr>`)}</tbody>
  </table>`;
}

/** All of a model's. */
export function ModelSettings({ model }) {
  const { settings, failure } = useSettings(model.id, model.state);
  const groups = settings ? [["Chats", settings.chat], ["Completions", settings.completion], ["Model", settings.model]] : [];
  return html`<div class="settings-of" role="region" aria-label=${`Settings of ${model.id}`} aria-busy=${!settings && !failure}>
    ${failure && html`<p class="failure" role="alert">${failure}</p>`}
    ${groups.filter(([, list]) => list.length > 0).map(([title, list]) => html`<${SettingsTable} key=${title} title=${title} settings=${list} />`)}
  </div>`;
}
