// What a request is made with: model, mode, system prompt, parameters.
import { html } from "./html.js";
import { NUMBERS, settled } from "./request.js";
import { SettingsTable, shown, useSettings } from "./settings.js";
import { STATES } from "./states.js";

const FORMATS = [["text", "Text"], ["json_object", "JSON object"], ["json_schema", "JSON by a schema"]];

export function Form({ form, change, live }) {
  const set = (name) => (event) => change({ [name]: event.target.value });
  const asked = form.model.trim() || live.service?.default_model;
  const chosen = live.models.find((model) => model.id === asked || model.aliases.includes(asked));
  const { settings } = useSettings(chosen?.id, chosen?.state);
  const numbers = (more) =>
    NUMBERS.filter((it) => Boolean(it.more) === more).map((it) => html`<${Number_} it=${it} form=${form} set=${set} settings=${settings} />`);
  return html`<form class="settings" onSubmit=${(event) => event.preventDefault()}>
    <${Model} form=${form} change=${change} live=${live} />
    <fieldset class="choice">
      <legend>Mode</legend>
      ${[["chat", "Chat"], ["completion", "Raw text"]].map(
        ([mode, label]) => html`<label>
          <input type="radio" name="mode" checked=${form.mode === mode} onChange=${() => change({ mode })} />
          <span>${label}</span>
        </label>`,
      )}
    </fieldset>
    ${form.mode === "chat" &&
    html`<label>System prompt
      <textarea rows="2" value=${form.system} onInput=${set("system")} placeholder="None"></textarea>
    </label>`}
    <div class="grid">${numbers(false)}</div>
    <details>
      <summary>More</summary>
      <div class="grid">${numbers(true)}</div>
      <label>Stop texts, one a line <textarea rows="2" value=${form.stop} onInput=${set("stop")}></textarea></label>
      ${form.mode === "chat" && html`<${Shapes} form=${form} set=${set} />`}
    </details>
    ${settings && html`<details>
      <summary>In force</summary>
      <${SettingsTable} title="Setting" settings=${settled(form, settings)} />
    </details>`}
  </form>`;
}

function Model({ form, change, live }) {
  const chosen = live.models.find((model) => model.id === form.model || model.aliases.includes(form.model));
  const preset = live.service?.default_model ?? "";
  return html`<label>Model
    <input list="models" value=${form.model} placeholder=${preset} autocomplete="off" spellcheck=${false} autocapitalize="off"
      onInput=${(event) => change({ model: event.target.value })} />
    <datalist id="models">
      ${live.models.filter((model) => model.kind === "text").map((model) => html`<option value=${model.id}>${STATES[model.state].label}</option>`)}
      ${live.models.flatMap((model) => model.aliases.map((alias) => html`<option value=${alias}>${model.id}</option>`))}
    </datalist>
    <small>${hint(form.model, chosen, live.service?.offline)}</small>
  </label>`;
}

function hint(asked, chosen, offline) {
  if (!asked.trim()) return offline ? "The default; others of this machine can be typed." : "The default; any other id of the hub can be typed.";
  if (!chosen) return offline ? "Not on this machine, and the service is offline." : "Not on this machine: it is fetched from the hub when asked.";
  return `${STATES[chosen.state].label[0].toUpperCase()}${STATES[chosen.state].label.slice(1)}.`;
}

function Number_({ it, form, set, settings }) {
  const left = settled({ mode: form.mode }, settings).find((setting) => setting.name === it.name);
  const words = left ? shown(left) : (it.left ?? "default");
  const title = [it.note, left && `left open: ${words} (${left.origin})`].filter(Boolean).join("; ");
  return html`<label title=${title}>${it.label}
    <input type="number" inputmode="decimal" min=${it.min} max=${it.max} step=${it.step} placeholder=${words.length > 10 ? "context" : words}
      value=${form[it.name] ?? ""} onInput=${set(it.name)} />
  </label>`;
}

function Shapes({ form, set }) {
  return html`
    <label>Answer as
      <select value=${form.format} onChange=${set("format")}>
        ${FORMATS.map(([value, label]) => html`<option value=${value}>${label}</option>`)}
      </select>
    </label>
    ${form.format === "json_schema" &&
    html`<label>JSON schema
      <textarea class="mono" rows="5" spellcheck=${false} value=${form.schema} onInput=${set("schema")}
        placeholder='{"type": "object", "properties": {"city": {"type": "string"}}}'></textarea>
    </label>`}
    <label>Tools, a JSON list
      <textarea class="mono" rows="3" spellcheck=${false} value=${form.tools} onInput=${set("tools")}
        placeholder='[{"type": "function", "function": {"name": "weather", ...}}]'></textarea>
    </label>`;
}
