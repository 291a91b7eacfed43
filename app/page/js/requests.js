// The last requests: who asked how, what it took, where the time went, how they ended.
import { clock, span, time } from "./format.js";
import { html } from "./html.js";
import { useElapsed } from "./store.js";

const WORDS = {
  waiting: "waiting", running: "running", answered: "answered", refused: "refused", failed: "failed", left: "client left",
};
const NAMES = {
  "/v1/chat/completions": "chat",
  "/v1/completions": "completion",
  "/v1/embeddings": "embeddings",
  "/v1/messages": "messages",
  "/v1/messages/count_tokens": "messages, counted",
  "/v1/rerank": "rerank",
  "/v1/responses": "responses",
  "/v1/responses/input_tokens": "responses, counted",
};
const STAGES = ["queue", "load", "prefill", "decode"];

const goesOn = (it) => it.outcome === "waiting" || it.outcome === "running";

export function Requests({ requests, at }) {
  const elapsed = useElapsed(at, requests.some(goesOn));
  return html`<section class="card" aria-labelledby="requests-title">
    <h2 id="requests-title">Recent requests</h2>
    ${requests.length === 0
      ? html`<p class="muted">None yet. What is asked and answered is not listed, only how it went.</p>`
      : html`<div class="scroll"><table class="requests">
          <thead><tr><th>Time</th><th>Model</th><th>Outcome</th><th class="number" title="Of the prompt + of the answer">Tokens</th>
            <th class="number" title="Of the prompt, what a prefix cache knew">Cached</th>
            <th class="number" title="Until the first token">First</th>
            <th class="number">Tokens/s</th><th>Took</th></tr></thead>
          <tbody>${requests.map((it) => html`<${Row} key=${it.id + it.at} it=${it} elapsed=${elapsed} />`)}</tbody>
        </table></div>
        <p class="legend small muted">${STAGES.map((stage) => html`<span><i class="stage ${stage}"></i>${stage}</span>`)}</p>`}
  </section>`;
}

function Row({ it, elapsed }) {
  const rate = speed(it);
  return html`<tr>
    <td class="muted" title=${it.id}>${time(it.at)}</td>
    <td><span class="id">${it.model ?? "default"}</span>
      <div class="muted small">${NAMES[it.path] ?? it.path}${it.client && ` · ${it.client}`}</div></td>
    <td><span class="chip ${it.outcome}">${WORDS[it.outcome]}${it.status >= 400 ? ` ${it.status}` : ""}</span>
      ${it.calls.length > 0 && html`<div class="small called">calls ${it.calls.map((name) => html`<code>${name}</code> `)}</div>`}
      ${it.message && html`<div class="muted small message">${it.message}</div>`}</td>
    <td class="number" data-label="tokens">${it.prompt_tokens || it.completion_tokens ? `${it.prompt_tokens} + ${it.completion_tokens}` : ""}</td>
    <td class="number" data-label="cached">${it.cached_tokens ? `${Math.floor((100 * it.cached_tokens) / it.prompt_tokens)} %` : ""}</td>
    <td class="number" data-label="first">${it.first_token_seconds === null ? "" : span(it.first_token_seconds)}</td>
    <td class="number" data-label="tokens/s">${rate === null ? "" : rate.toFixed(rate < 10 ? 1 : 0)}</td>
    <td data-label="took">${goesOn(it) ? html`<span class="muted">${clock(it.seconds + elapsed)} so far</span>` : html`<${Waterfall} it=${it} />`}</td>
  </tr>`;
}

/** Tokens a second, from the first to the last. */
function speed(it) {
  const decoding = it.timings?.decode || it.seconds - (it.first_token_seconds ?? it.seconds);
  return it.completion_tokens > 1 && decoding > 0.001 ? (it.completion_tokens - 1) / decoding : null;
}

/** One bar as long as the request, its stages in their order; what is left is the service's and the client's own. */
function Waterfall({ it }) {
  const parts = STAGES.map((name) => ({ name, seconds: it.timings?.[name] ?? 0 })).filter((part) => part.seconds > 0);
  const words = parts.map((part) => `${part.name} ${span(part.seconds)}`).join(", ");
  return html`<span class="waterfall">
    ${parts.length > 0 && html`<span class="track" role="img" aria-label=${words} title=${words}>
      ${parts.map((part) => html`<i class="stage ${part.name}" style=${{ width: `${(100 * part.seconds) / Math.max(it.seconds, 0.001)}%` }}></i>`)}
    </span>`}<span class="number">${span(it.seconds)}</span>
  </span>`;
}
