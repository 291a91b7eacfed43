// One turn of a conversation: a question, or an answer with its thoughts, its tool calls and its figures.
import { Copy } from "./copy.js";
import { count, span } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { rendered } from "./markdown.js";
import { figures } from "./session.js";

const REASONS = {
  length: "Cut at the token limit; Max tokens sets it.",
  stopped: "Stopped.",
  content_filter: "Ended by the content filter.",
  tool_calls: "Asks for a tool.",
};

export function Turn({ turn, live, again }) {
  if (turn.role === "user") return html`<article class="turn user"><div class="text">${turn.text}</div></article>`;
  const ended = turn.state === "ended";
  return html`<article class="turn assistant" aria-label="Answer">
    ${turn.thoughts && html`<${Thoughts} turn=${turn} />`}
    ${turn.mode === "completion"
      ? html`<div class="raw"><span class="given">${turn.prompt}</span><span class="new">${turn.text}</span></div>`
      : html`<${Said} text=${turn.text} ended=${ended} />`}
    ${turn.calls.map((call) => html`<${Call} call=${call} />`)}
    ${turn.state === "waiting" && html`<${Waiting} turn=${turn} live=${live} />`}
    ${turn.failure && html`<p class="failure" role="alert">${turn.failure}</p>`}
    ${ended && html`<${Figures} turn=${turn} again=${again} />`}
  </article>`;
}

function Said({ text, ended }) {
  const place = useRef();
  const shown = ended ? (asJson(text) ?? text) : text;
  useLayoutEffect(() => place.current.replaceChildren(rendered(shown)), [shown]);
  return html`<div class="text said" ref=${place}></div>`;
}

/** An answer that is JSON, as a block of it; null for any other. */
function asJson(text) {
  const start = text.trimStart()[0];
  if (start !== "{" && start !== "[") return null;
  try {
    return `\`\`\`json\n${JSON.stringify(JSON.parse(text), null, 2)}\n\`\`\``;
  } catch {
    return null;
  }
}

function Thoughts({ turn }) {
  const thinking = !turn.text && turn.calls.length === 0 && turn.state !== "ended";
  return html`<details class="thoughts" open=${thinking}>
    <summary>${thinking ? "Thinking…" : "Thoughts"}</summary>
    <div class="text">${turn.thoughts}</div>
  </details>`;
}

function Call({ call }) {
  let shown = call.arguments;
  try {
    shown = JSON.stringify(JSON.parse(call.arguments), null, 2);
  } catch {
    // not yet whole
  }
  return html`<div class="call">
    <div class="row"><span class="chip">tool call</span><strong>${call.name}</strong></div>
    <pre tabindex="0">${shown}</pre>
  </div>`;
}

function Waiting({ turn, live }) {
  const id = turn.model || live.service?.default_model;
  const model = live.models.find((it) => it.id === id || it.aliases.includes(id));
  const words = {
    downloading: "The model is being downloaded",
    loading: "The model is being loaded",
    queued: "Waiting for memory",
    unloading: "Waiting for memory",
  };
  const seconds = useSeconds(turn.began);
  return html`<p class="waiting" role="status">
    <span class="pulse"></span> ${words[model?.state] ?? "Waiting for the first word"}${seconds >= 2 ? ` · ${seconds} s` : ""}
  </p>`;
}

function useSeconds(began) {
  const [seconds, set] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => set(Math.floor((performance.now() - began) / 1000)), 1000);
    return () => clearInterval(timer);
  }, [began]);
  return seconds;
}

function Figures({ turn, again }) {
  const { prompt, cached, tokens, first, rate } = figures(turn);
  const parts = [
    tokens !== undefined && `${count(prompt, "token")} in${cached ? `, ${cached.toLocaleString("en")} of them cached` : ""} · ${tokens.toLocaleString("en")} out`,
    first !== null && `first after ${span(first)}`,
    rate !== null && `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`,
    REASONS[turn.reason],
  ].filter(Boolean);
  return html`<footer class="figures">
    <span title=${turn.model}>${parts.join(" · ")}</span>
    <span class="row">
      ${turn.text && html`<${Copy} text=${() => turn.text} />`}
      ${again && html`<button type="button" class="quiet small" onClick=${again}>Again</button>`}
    </span>
  </footer>`;
}
