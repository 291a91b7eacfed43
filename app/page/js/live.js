// The machine as it is now: one stream of events, opened again when it is cut. Nothing is polled. A page that is not
// looked at has none: a browser keeps six connections to a server, for all tabs together.
import { useEffect, useState } from "./html.js";
import { ask, events } from "./net.js";

const LONGEST_WAIT = 10_000;
const UNTIL_WOKEN = 2 ** 31 - 1;

class Live {
  state = { connected: false, service: null, models: [], memory: null, requests: [], at: 0, speeds: {} };
  #watchers = new Set();
  #wake = () => {};
  #running = new AbortController();

  constructor() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#running.abort() : this.retry()));
    addEventListener("pagehide", () => this.#running.abort());
    addEventListener("pageshow", (event) => event.persisted && this.retry());
    this.#follow();
  }

  /** Try again at once, for example because a key has been entered. */
  retry() {
    this.#wake();
  }

  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  #set(part) {
    this.state = { ...this.state, ...part };
    for (const watcher of this.#watchers) watcher(this.state);
  }

  async #follow() {
    for (let wait = 500; ; wait = wait === UNTIL_WOKEN ? 500 : Math.min(wait * 2, LONGEST_WAIT)) {
      try {
        this.#running = new AbortController();
        const response = await ask("GET", "admin/events", { signal: this.#running.signal });
        wait = 500;
        for await (const data of events(response)) if (data !== "[DONE]") this.#take(JSON.parse(data));
      } catch (error) {
        if (error.status === 401 || error.status === 403) wait = UNTIL_WOKEN;
      }
      if (document.hidden || this.#running.signal.aborted) wait = UNTIL_WOKEN;
      this.#set({ connected: false });
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, wait);
      });
    }
  }

  #take(event) {
    const at = performance.now();
    const speeds = event.models ? this.#speeds(event.models, at) : this.state.speeds;
    this.#set({ ...event, connected: true, at, speeds });
  }

  /** Bytes per second of each running download, smoothed over the moments that have been told. */
  #speeds(models, at) {
    const speeds = {};
    for (const { id, download } of models) {
      if (!download) continue;
      const before = this.state.speeds[id];
      if (!before) speeds[id] = { at, done: download.done, rate: 0 };
      else if (at - before.at < 400) speeds[id] = before;
      else {
        const rate = (1000 * (download.done - before.done)) / (at - before.at);
        speeds[id] = { at, done: download.done, rate: before.rate ? 0.6 * before.rate + 0.4 * rate : rate };
      }
    }
    return speeds;
  }
}

export const live = new Live();

export function useLive() {
  const [state, set] = useState(live.state);
  useEffect(() => live.watch(set), []);
  return state;
}
