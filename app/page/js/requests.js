// The last requests and how they ended.
import { span, time } from "./format.js";
import { html } from "./html.js";

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

export function Requests({ requests }) {
  return html`<section class="card" aria-labelledby="requests-title">
    <h2 id="requests-title">Recent requests</h2>
    ${requests.length === 0
      ? html`<p class="muted">None yet. What is asked and answered is not listed, only how it went.</p>`
      : html`<div class="scroll"><table class="requests">
          <thead><tr><th>Time</th><th>Model</th><th>Outcome</th><th class="number" title="Of the prompt + of the answer">Tokens</th>
            <th class="number" title="Until the first token">First</th>
            <th class="number">Tokens/s</th><th class="number">Took</th></tr></thead>
          <tbody>${requests.map((it) => html`<${Row} key=${it.id + it.at} it=${it} />`)}</tbody>
        </table></div>`}
  </section>`;
}

function Row({ it }) {
  const decoding = it.seconds - (it.first_token_seconds ?? it.seconds);
  const rate = it.completion_tokens > 1 && decoding > 0.001 ? (it.completion_tokens - 1) / decoding : null;
  const ended = it.outcome !== "waiting" && it.outcome !== "running";
  return html`<tr>
    <td class="muted" title=${it.id}>${time(it.at)}</td>
    <td><span class="id">${it.model ?? "default"}</span> <span class="muted small">${NAMES[it.path] ?? it.path}</span></td>
    <td><span class="chip ${it.outcome}">${WORDS[it.outcome]}${it.status >= 400 ? ` ${it.status}` : ""}</span>
      ${it.message && html`<div class="muted small message">${it.message}</div>`}</td>
    <td class="number" data-label="tokens">${it.prompt_tokens || it.completion_tokens ? `${it.prompt_tokens} + ${it.completion_tokens}` : ""}</td>
    <td class="number" data-label="first">${it.first_token_seconds === null ? "" : span(it.first_token_seconds)}</td>
    <td class="number" data-label="tokens/s">${rate === null ? "" : rate.toFixed(rate < 10 ? 1 : 0)}</td>
    <td class="number" data-label="took">${ended ? span(it.seconds) : ""}</td>
  </tr>`;
}
