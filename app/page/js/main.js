// The page: a playground and the machine behind it.
import { html, render, useEffect, useState } from "./html.js";
import { KeyDialog } from "./key.js";
import { useLive } from "./live.js";
import { Machine } from "./machine.js";
import { Playground } from "./playground.js";
import { Theme } from "./theme.js";
import { bytes } from "./format.js";

function useHash() {
  const [hash, set] = useState(location.hash);
  useEffect(() => {
    const changed = () => set(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return hash;
}

function Gauge({ memory }) {
  if (!memory) return null;
  const used = memory.weights + memory.kv + memory.prefix_caches;
  const share = memory.budget ? Math.min(1, used / memory.budget) : 0;
  return html`<a class="gauge" href="#machine" title="Memory: ${bytes(used)} of ${bytes(memory.budget)} in use">
    <span class="track"><span class="fill" style=${{ width: `${100 * share}%` }}></span></span>
    <span class="wide">${bytes(used)} of ${bytes(memory.budget)}</span>
  </a>`;
}

function App() {
  const live = useLive();
  const machine = useHash() === "#machine";
  const here = (yes) => (yes ? "page" : undefined);
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header>
      <a class="brand" href="#"><img src="page/icon.svg" alt="" width="26" height="26" /><span>Switchyard</span></a>
      <nav aria-label="Views">
        <a href="#playground" aria-current=${here(!machine)}>Playground</a>
        <a href="#machine" aria-current=${here(machine)}>Machine</a>
        <a href="docs">API</a>
      </nav>
      <${Gauge} memory=${live.memory} />
      <span class=${live.connected ? "dot on" : "dot"} role="status">
        <span class="wide">${live.connected ? "live" : "not connected"}</span>
      </span>
      <${Theme} />
    </header>
    <main id="main" tabindex="-1">
      <div hidden=${machine}><${Playground} live=${live} /></div>
      ${machine && html`<${Machine} live=${live} />`}
    </main>
    <${KeyDialog} />
  `;
}

render(html`<${App} />`, document.body);
