// The machine as it is now: one stream of events, opened again when it is cut. Nothing is polled. A page that is not
// looked at has none: a browser keeps six connections to a server, for all tabs together.
import { ask, events } from "./net.js";
import { Store } from "./store.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;

class Live extends Store {
  #running = new AbortController();
  #wake = () => {};
  #woken = false;

  constructor() {
    super({ connected: false, service: null, models: [], memory: null, requests: [], at: 0, asked: 0, speeds: {} });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#running.abort() : this.retry()));
    addEventListener("pagehide", () => this.#running.abort());
    addEventListener("pageshow", (event) => event.persisted && this.retry());
    this.#follow();
  }

  /** Try again at once, for example because a key has been entered. */
  retry() {
    this.#woken = true;
    this.#wake();
  }

  async #follow() {
    let wait = FIRST_WAIT;
    for (;;) {
      let refused = false;
      this.#woken = false; // whoever calls for another try from here on gets one, also while this one still ends
      this.#running = new AbortController();
      try {
        if (document.hidden) this.#running.abort();
        const response = await ask("GET", "admin/events", { signal: this.#running.signal });
        wait = FIRST_WAIT;
        for await (const data of events(response)) if (data !== "[DONE]") this.#take(JSON.parse(data));
      } catch (error) {
        refused = error.status === 401 || error.status === 403;
      }
      this.set({ connected: false });
      const rests = refused || document.hidden || this.#running.signal.aborted;
      if (!this.#woken) await this.#pause(rests ? null : wait);
      wait = rests ? FIRST_WAIT : Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  /** Until the wait is over, or somebody asks for another try; with no wait only that. */
  #pause(wait) {
    return new Promise((resolve) => {
      const timer = wait === null ? undefined : setTimeout(resolve, wait);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #take(event) {
    const at = performance.now();
    const speeds = event.models ? this.#speeds(event.models, at) : this.state.speeds;
    this.set({ ...event, connected: true, at, asked: event.requests ? at : this.state.asked, speeds });
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
