// One conversation: what was said, the answer that is coming, how fast it comes.
import { ask, values } from "./net.js";
import { body, path } from "./request.js";

let numbers = 0;

export class Session {
  turns = [];
  running = null;
  #changed;
  #frame = 0;

  constructor(changed) {
    this.#changed = changed;
  }

  clear() {
    this.stop();
    this.turns = [];
    this.#changed();
  }

  stop() {
    this.running?.abort();
  }

  /** Ask with what is in the form; null as the prompt asks the last question again. */
  async send(form, prompt) {
    if (this.running) return;
    const again = prompt === null ? this.#dropLast() : prompt;
    const question = form.mode === "chat" ? this.#question(again) : null;
    const answer = {
      number: (numbers += 1), role: "assistant", mode: form.mode, prompt: question ? null : again, text: "",
      thoughts: "", calls: [], state: "waiting", began: performance.now(), first: 0, last: 0, usage: null,
      reason: null, failure: null, model: form.model,
    };
    const made = () => body(form, this.#history(), question ? null : again);
    let sent;
    try {
      sent = { ...made(), stream: true, stream_options: { include_usage: true } };
    } catch (error) {
      sent = null;
      answer.failure = error.message;
    }
    this.turns = [...this.turns, answer];
    this.running = new AbortController();
    this.#changed();
    if (sent) await this.#run(path(form), sent, answer);
    answer.state = "ended";
    this.running = null;
    this.#changed();
  }

  async #run(where, sent, answer) {
    try {
      const response = await ask("POST", where, { body: sent, signal: this.running.signal });
      for await (const chunk of values(response)) {
        this.#take(chunk, answer);
        this.#soon();
      }
    } catch (error) {
      if (error.name === "AbortError") answer.reason = "stopped";
      else answer.failure = error.message;
    }
  }

  #take(chunk, answer) {
    answer.model = chunk.model ?? answer.model;
    if (chunk.usage) answer.usage = chunk.usage;
    for (const choice of chunk.choices) {
      const delta = choice.delta ?? { content: choice.text };
      const thought = delta.reasoning_content ?? delta.reasoning ?? "";
      if (thought || delta.content || delta.tool_calls) {
        answer.last = performance.now();
        answer.first ||= answer.last;
        answer.state = "running";
      }
      answer.thoughts += thought;
      answer.text += delta.content ?? "";
      for (const call of delta.tool_calls ?? []) {
        const known = (answer.calls[call.index ?? 0] ??= { id: call.id, name: "", arguments: "" });
        known.name += call.function?.name ?? "";
        known.arguments += call.function?.arguments ?? "";
      }
      answer.reason = choice.finish_reason ?? answer.reason;
    }
  }

  /** What has been said, without questions that were never answered: templates want turns to alternate. */
  #history() {
    const said = this.turns.filter((turn) => turn.mode === "chat");
    return said
      .filter((turn, at) => (turn.role === "user" ? at === said.length - 1 || said[at + 1].text : turn.text))
      .map(({ role, text }) => ({ role, content: text }));
  }

  #question(text) {
    const question = { number: (numbers += 1), role: "user", mode: "chat", text };
    this.turns = [...this.turns, question];
    return question;
  }

  #dropLast() {
    const last = this.turns.at(-1);
    if (last.mode === "completion") {
      this.turns = this.turns.slice(0, -1);
      return last.prompt;
    }
    const asked = this.turns.findLastIndex((turn) => turn.role === "user");
    const { text } = this.turns[asked];
    this.turns = this.turns.slice(0, asked);
    return text;
  }

  /** Many pieces, one drawing for each frame of the screen. */
  #soon() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#changed();
    });
  }
}

/** Figures of an answer, as far as they are known. */
export function figures(answer) {
  const tokens = answer.usage?.completion_tokens;
  const seconds = (answer.last - answer.first) / 1000;
  return {
    prompt: answer.usage?.prompt_tokens,
    cached: answer.usage?.prompt_tokens_details?.cached_tokens,
    tokens,
    first: answer.first ? (answer.first - answer.began) / 1000 : null,
    rate: tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
  };
}
