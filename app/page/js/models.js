// Every known model, its state, and what may be done with it.
import { bytes, clock, context, count } from "./format.js";
import { Hub } from "./hub.js";
import { html, useEffect, useState } from "./html.js";
import { ask, modelPath, values } from "./net.js";
import { ModelSettings } from "./settings.js";
import { STATES, hue } from "./states.js";
import { Store, useElapsed, useStore } from "./store.js";

/** What is being done to models, and how the last of it failed: it ends while another view is shown, too. */
class Actions extends Store {
  constructor() {
    super({ running: [], failure: "" });
  }

  async run(id, work) {
    const action = { id };
    this.set({ running: [...this.state.running, action], failure: "" });
    try {
      await work();
    } catch (error) {
      this.set({ failure: error.message });
    }
    this.set({ running: this.state.running.filter((it) => it !== action) });
  }
}

const actions = new Actions();

export function Models({ live }) {
  const { running, failure } = useStore(actions);
  const offline = live.service?.offline ?? false;
  const busy = new Set(running.map((action) => action.id));
  const sorted = live.models.toSorted((a, b) => STATES[a.state].order - STATES[b.state].order || a.id.localeCompare(b.id, "en", { numeric: true }));
  return html`<section class="card" aria-labelledby="models-title">
    <div class="row between">
      <h2 id="models-title">Models</h2>
      ${offline
        ? html`<span class="muted">Offline: the hub is neither searched nor pulled from.</span>`
        : html`<${Hub} pull=${(id) => actions.run(id, () => pull(id))} />`}
    </div>
    ${failure && html`<p class="failure" role="alert">${failure}
      <button type="button" class="quiet small" onClick=${() => actions.set({ failure: "" })}>Dismiss</button></p>`}
    <ul class="models">
      ${sorted.map((model) => html`<${Model} key=${model.id} model=${model} color=${hue(model.id, live.models)} at=${live.at} speed=${live.speeds[model.id]} offline=${offline} busy=${busy.has(model.id)} />`)}
    </ul>
  </section>`;
}

async function pull(id) {
  const response = await ask("POST", modelPath(id, "pull"));
  for await (const moment of values(response)) void moment; // the list shows how far it is; a failure is thrown
}

function Model({ model, color, at, speed, busy, offline }) {
  const [open, setOpen] = useState(false);
  const act = (action, method = "POST") => () =>
    actions.run(model.id, () => (action === "pull" ? pull(model.id) : ask(method, modelPath(model.id, action))));
  const button = (label, action, disabled = false) =>
    html`<button type="button" class="quiet" disabled=${busy || disabled} onClick=${act(action)}>${label}</button>`;
  const resident = model.state === "resident";
  return html`<li class="model" data-state=${model.state} data-id=${model.id}>
    <div class="name">
      <i class=${resident ? "weights" : "none"} style=${{ "--hue": color }}></i>
      <strong>${model.id}</strong>
      ${model.aliases.map((alias) => html`<span class="alias">${alias}</span>`)}
    </div>
    <div class="state">
      <span class="chip ${model.state}">${STATES[model.state].label}</span>
      <${Badges} model=${model} />
      ${model.pinned && html`<span class="chip pinned">pinned</span>`}
      <${Details} model=${model} at=${at} />
    </div>
    <div class="row actions">
      ${resident && button(model.pinned ? "Unpin" : "Pin", model.pinned ? "unpin" : "pin")}
      ${resident && button("Unload", "unload", model.leases > 0)}
      ${(model.state === "on_disk" || model.state === "absent") && button("Load", "load")}
      ${model.state === "absent" && !offline && button("Pull", "pull")}
      ${model.state === "on_disk" && model.source === "hub" && html`<${Remove} busy=${busy} remove=${act("", "DELETE")} />`}
      <button type="button" class="quiet" aria-expanded=${open} onClick=${() => setOpen(!open)}>Settings</button>
    </div>
    ${open && html`<${ModelSettings} model=${model} />`}
    ${model.download && html`<${Transfer} download=${model.download} rate=${speed?.rate ?? 0} />`}
  </li>`;
}

/** What it can do, as far as its files say. */
function Badges({ model }) {
  const { abilities, kind } = model;
  const badges = [
    kind !== "text" && kind,
    abilities.chat && "chat",
    abilities.tools && "tools",
    abilities.thinking && "thinks",
    abilities.context_length && `${context(abilities.context_length)} context`,
  ].filter(Boolean);
  return badges.map((badge) => html`<span class="badge">${badge}</span>`);
}

function Remove({ busy, remove }) {
  const [sure, ask_] = useState(false);
  useEffect(() => {
    const timer = sure && setTimeout(() => ask_(false), 5000);
    return () => clearTimeout(timer);
  }, [sure]);
  return sure
    ? html`<button type="button" class="danger" disabled=${busy} onClick=${remove}>Really remove</button>`
    : html`<button type="button" class="quiet" disabled=${busy} onClick=${() => ask_(true)}>Remove</button>`;
}

function Details({ model, at }) {
  const elapsed = useElapsed(at, model.idle_seconds !== null || model.expires_in !== null);
  const parts = [
    model.nbytes > 0 && `${bytes(model.nbytes)} weights`,
    model.kv_bytes > 0 && `${bytes(model.kv_bytes)} KV`,
    model.beside > 0 && `${bytes(model.beside)} beside arrays`,
    model.pid && !model.ranks?.length && `process ${model.pid}: ${bytes(model.process)}`,
    ...(model.ranks ?? []).map((it) => `rank ${it.rank}, process ${it.pid}${it.host && ` on ${it.host}`}: ${bytes(it.resident)}`),
    model.losses > 0 && `ended ${count(model.losses, "time")} unasked`,
    model.leases > 0 && `in use by ${count(model.leases, "request")}`,
    model.queued > 0 && `${model.queued} waiting`,
    model.idle_seconds !== null && `idle for ${clock(model.idle_seconds + elapsed)}`,
    model.expires_in !== null && `leaves in ${clock(model.expires_in - elapsed)}`,
  ].filter(Boolean);
  return html`<span class="muted">${parts.join(" · ")}</span>`;
}

function Transfer({ download, rate }) {
  const { done, total } = download;
  const left = rate > 0 && total > done ? `, ${clock((total - done) / rate)} left` : "";
  const words = total ? `${bytes(done)} of ${bytes(total)}` : "asking the hub";
  return html`<div class="transfer">
    <progress max=${total || undefined} value=${total ? done : undefined} aria-label="Download"></progress>
    <span class="muted small">${words}${rate > 0 ? `, ${bytes(rate)}/s` : ""}${left}</span>
  </div>`;
}
