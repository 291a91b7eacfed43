// The page: a playground and the machine behind it.
import { html, render } from "./html.js";
import { KeyDialog } from "./key.js";
import { live } from "./live.js";
import { Machine } from "./machine.js";
import { Playground } from "./playground.js";
import { useEvent, useStore } from "./store.js";
import { Theme } from "./theme.js";
import { bytes } from "./format.js";

function Gauge({ memory }) {
  if (!memory) return null;
  const used = memory.weights + memory.kv + memory.scratch + memory.processes + memory.prefix_caches;
  const share = memory.budget ? Math.min(1, used / memory.budget) : 0;
  return html`<a class="gauge" href="#machine" title="Memory: ${bytes(used)} of ${bytes(memory.budget)} in use">
    <span class="track"><span class="fill" style=${{ width: `${100 * share}%` }}></span></span>
    <span class="wide">${bytes(used)} of ${bytes(memory.budget)}</span>
  </a>`;
}

function App() {
  const now = useStore(live);
  const machine = useEvent(window, "hashchange", () => location.hash) === "#machine";
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
      <${Gauge} memory=${now.memory} />
      <span class=${now.connected ? "dot on" : "dot"} role="status">
        <span class="wide">${now.connected ? "live" : "not connected"}</span>
      </span>
      <${Theme} />
    </header>
    <main id="main" tabindex="-1">
      <div hidden=${machine}><${Playground} live=${now} /></div>
      ${machine && html`<${Machine} live=${now} />`}
    </main>
    <${KeyDialog} />
  `;
}

render(html`<${App} />`, document.body);
