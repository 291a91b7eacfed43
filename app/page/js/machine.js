// The machine: its memory, its models, what it was asked lately.
import { Compare } from "./compare.js";
import { html } from "./html.js";
import { Memory } from "./memory.js";
import { Models } from "./models.js";
import { Requests } from "./requests.js";

export function Machine({ live }) {
  if (!live.memory) return html`<p class="welcome">Waiting for the service…</p>`;
  return html`<div class="machine">
    <${Memory} memory=${live.memory} models=${live.models} />
    <${Models} live=${live} />
    <${Compare} models=${live.models} />
    <${Requests} requests=${live.requests} at=${live.asked} />
  </div>`;
}
