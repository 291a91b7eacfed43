// The memory budget as one stacked bar.
import { bytes } from "./format.js";
import { html } from "./html.js";
import { hue } from "./states.js";

export function Memory({ memory, models }) {
  const held = models.filter((model) => model.nbytes > 0);
  const kv = held.reduce((sum, model) => sum + model.kv_bytes, 0);
  const parts = [
    ...held.map((model) => ({ name: model.id, size: model.nbytes, kind: "weights", hue: hue(model.id, models) })),
    { name: "KV caches of running requests", size: Math.max(kv, memory.kv), kind: "kv" },
    { name: "Set aside for computing", size: memory.scratch, kind: "scratch" },
    { name: "Models' processes: libraries, tokenizers, grammars", size: memory.processes, kind: "processes" },
    { name: "Prefix caches", size: memory.prefix_caches, kind: "prefix" },
    { name: "Not booked", size: memory.unaccounted, kind: "unaccounted" },
  ].filter((part) => part.size > 0);
  const used = parts.reduce((sum, part) => sum + part.size, 0);
  const free = Math.max(0, memory.limit - used);
  const share = (size) => ({ width: `${(100 * size) / Math.max(memory.budget, used + memory.margin)}%` });
  return html`<section class="card" aria-labelledby="memory">
    <div class="row between">
      <h2 id="memory">Memory</h2>
      <span class="muted">${bytes(used)} in use, ${bytes(free)} free of a budget of ${bytes(memory.budget)}</span>
    </div>
    <div class="bar" role="img" aria-label=${`${bytes(used)} of ${bytes(memory.limit)} in use`}>
      ${parts.map((part) => html`<span key=${part.kind + part.name} class=${part.kind} title=${`${part.name}: ${bytes(part.size)}`}
        style=${{ ...share(part.size), "--hue": part.hue ?? 0 }}></span>`)}
      <span class="free" style=${{ flex: 1 }}></span>
      <span class="margin" title=${`Margin for scratch space: ${bytes(memory.margin)}`} style=${share(memory.margin)}></span>
    </div>
    <ul class="legend">
      ${parts.map((part) => html`<li><i class=${part.kind} style=${{ "--hue": part.hue ?? 0 }}></i>${part.name} <b>${bytes(part.size)}</b></li>`)}
      ${memory.disk_cache > 0 && html`<li><i class="disk"></i>Prefixes on disk, beside the budget <b>${bytes(memory.disk_cache)}</b></li>`}
      <li><i class="margin"></i>Margin for scratch space <b>${bytes(memory.margin)}</b></li>
    </ul>
    <p class="muted small">
      Measured: ${bytes(memory.active)} in live arrays, ${bytes(memory.pool)} kept for reuse, ${bytes(memory.process)} in the
      service and all processes, ${bytes(memory.kv_held)} of KV caches filled, ${bytes(Math.abs(memory.books_error))} beside
      the books at rest; the machine has ${bytes(memory.machine)} for models.
      ${memory.queued > 0 && html` <b>${memory.queued} waiting.</b>`}
    </p>
  </section>`;
}
