// Copying to the clipboard, with a word when it is done.
import { html, useEffect, useState } from "./html.js";

const SHOWN = 1500;

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // over plain http from another machine there is no clipboard API
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A button as a plain element, for rendered Markdown. */
export function copyButton(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await copy(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), SHOWN);
  });
  return button;
}

/** The same as a component. */
export function Copy({ text, label = "Copy", className = "quiet small" }) {
  const [done, set] = useState(0);
  useEffect(() => {
    const timer = done && setTimeout(() => set(0), SHOWN);
    return () => clearTimeout(timer);
  }, [done]);
  const click = async () => {
    await copy(text());
    set((times) => times + 1);
  };
  return html`<button type="button" class=${className} onClick=${click}>${done ? "Copied" : label}</button>`;
}
