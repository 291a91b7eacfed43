// Asking a model, and watching it answer.
import { Copy } from "./copy.js";
import { save } from "./export.js";
import { Form } from "./form.js";
import { html, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "./html.js";
import { key } from "./net.js";
import { EMPTY, body, curl, filled, python } from "./request.js";
import { Session } from "./session.js";
import { useEvent } from "./store.js";
import { Turn } from "./turn.js";

const NEAR_END = 80;

export function Playground({ live }) {
  const [, redraw] = useReducer((count) => count + 1, 0);
  const session = useMemo(() => new Session(() => redraw()), []);
  const [entered, setForm] = useState(EMPTY);
  const form = filled(entered, live);
  const [draft, setDraft] = useState("");
  const change = (part) => setForm((before) => ({ ...before, ...part }));
  const send = () => {
    if (session.running || (!draft.trim() && form.mode === "chat")) return;
    session.send(form, draft);
    if (form.mode === "chat") setDraft("");
  };
  useEscape(() => session.stop());
  const turns = session.turns.filter((turn) => turn.mode === form.mode);
  return html`<div class="playground">
    <section class="talk" aria-label="Conversation">
      <${Turns} turns=${turns} form=${form} live=${live} again=${session.running ? null : () => session.send(form, null)} />
      <${Composer} ...${{ draft, setDraft, send, form }} running=${session.running !== null} stop=${() => session.stop()} />
    </section>
    <aside aria-label="Settings of the request">
      <details class="fold" open=${useWide()}>
        <summary>Settings · ${form.model || live.service?.default_model || "model"}</summary>
        <${Form} form=${form} change=${change} live=${live} />
        <${Tools} form=${form} draft=${draft} session=${session} clear=${() => session.clear()} />
      </details>
    </aside>
  </div>`;
}

/** Whether there is room for the settings beside the conversation; on a phone they are folded. */
function useWide() {
  const query = useMemo(() => matchMedia("(min-width: 801px)"), []);
  return useEvent(query, "change", () => query.matches);
}

function useEscape(act) {
  useEffect(() => {
    const pressed = (event) => event.key === "Escape" && act();
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

function Turns({ turns, form, live, again }) {
  const list = useRef();
  const follows = useRef(true);
  useLayoutEffect(() => {
    if (follows.current) list.current.scrollTop = list.current.scrollHeight;
  });
  const scrolled = () => {
    const { scrollTop, clientHeight, scrollHeight } = list.current;
    follows.current = scrollHeight - scrollTop - clientHeight < NEAR_END;
  };
  const busy = turns.at(-1)?.state === "running" || turns.at(-1)?.state === "waiting";
  return html`<div class="turns" ref=${list} onScroll=${scrolled} role="log" aria-busy=${busy} tabindex="0" aria-label="What was said">
    ${turns.length === 0 && html`<${Welcome} form=${form} live=${live} />`}
    ${turns.map((turn, at) => html`<${Turn} key=${turn.number} turn=${turn} live=${live} again=${at === turns.length - 1 && again} />`)}
  </div>`;
}

function Welcome({ form, live }) {
  const asked = form.model || live.service?.default_model;
  const state = live.models.find((it) => it.id === asked || it.aliases.includes(asked))?.state;
  const model = asked || "the default model";
  return html`<div class="welcome">
    <img src="page/icon.svg" alt="" width="56" height="56" />
    <h1>${form.mode === "chat" ? "Ask something" : "Begin a text"}</h1>
    <p>
      <strong>${model}</strong>${" "}
      ${form.mode === "chat" ? "answers." : "continues your text as it stands, without a chat template."}
    </p>
    ${state === "on_disk" && html`<p>It is loaded with the first question, which takes some seconds.</p>`}
  </div>`;
}

function Composer({ draft, setDraft, send, form, running, stop }) {
  const area = useRef();
  useLayoutEffect(() => {
    area.current.style.height = "auto";
    area.current.style.height = `${Math.min(area.current.scrollHeight + 2, 260)}px`;
  }, [draft]);
  const pressed = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  const chat = form.mode === "chat";
  return html`<div class="composer">
    <textarea ref=${area} rows="1" id="prompt" aria-label=${chat ? "Message" : "Text to continue"} value=${draft}
      placeholder=${chat ? "Message" : "The capital of France is"} onInput=${(event) => setDraft(event.target.value)}
      onKeyDown=${pressed} autofocus></textarea>
    ${running
      ? html`<button type="button" class="stop" onClick=${stop} title="Esc">Stop</button>`
      : html`<button type="button" class="primary" onClick=${send} disabled=${chat && !draft.trim()}>${chat ? "Send" : "Continue"}</button>`}
    <p class="hint wide">Enter sends, Shift+Enter begins a line, Esc stops.</p>
  </div>`;
}

function Tools({ form, draft, session, clear }) {
  const write = (language) => () => {
    try {
      return language(form, body(form, [], draft || "What is the capital of France?"), key.get() !== "");
    } catch (error) {
      return `# ${error.message}\n`;
    }
  };
  return html`<div class="row tools">
    <${Copy} text=${write(curl)} label="Copy as curl" className="quiet" />
    <${Copy} text=${write(python)} label="Copy as Python" className="quiet" />
    <button type="button" class="quiet" onClick=${() => save(session.turns)} disabled=${session.turns.length === 0}>Export</button>
    <button type="button" class="quiet" onClick=${clear} disabled=${session.turns.length === 0}>Clear</button>
  </div>`;
}
