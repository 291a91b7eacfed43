// A conversation as a file: Markdown that people read, with its JSON at the end, which programs do.
import { figures } from "./session.js";

export function markdown(turns) {
  const parts = turns.map((turn) => {
    if (turn.role === "user") return `## Question\n\n${turn.text}`;
    const { prompt, tokens } = figures(turn);
    const of = tokens === undefined ? "" : ` (${prompt} + ${tokens} tokens)`;
    const said = [turn.prompt && quoted(turn.prompt), turn.thoughts && quoted(turn.thoughts), turn.text];
    for (const call of turn.calls) said.push(fenced(`${call.name} ${call.arguments}`));
    if (turn.failure) said.push(quoted(turn.failure));
    return [`## ${turn.model || "Answer"}${of}`, ...said.filter(Boolean)].join("\n\n");
  });
  return `${parts.join("\n\n")}\n\n## As messages\n\n${fenced(JSON.stringify(messages(turns), null, 2))}\n`;
}

/** As requests send them. */
export function messages(turns) {
  return turns.map(({ role, prompt, text, calls }) => ({
    role,
    content: prompt ? prompt + text : text,
    ...(calls?.length > 0 && {
      tool_calls: calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } })),
    }),
  }));
}

const quoted = (text) => text.trim().replace(/^/gm, "> ");

/** A block whose fence is longer than any within. */
function fenced(text) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text}\n${fence}`;
}

export function save(turns) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([markdown(turns)], { type: "text/markdown" }));
  link.download = `conversation-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
