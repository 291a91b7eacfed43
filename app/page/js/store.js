// State that lives outside of what is drawn, and the one way to draw from it.
import { useEffect, useState } from "./html.js";

/** State that may change at any time, whoever is drawn. */
export class Store {
  #watchers = new Set();

  constructor(state) {
    this.state = state;
  }

  set(part) {
    this.state = { ...this.state, ...part };
    for (const watcher of this.#watchers) watcher();
  }

  /** Call `watcher` after each change from now on; what is given back ends that. */
  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }
}

/**
 * What `read` gives, drawn anew whenever it has changed. `watch` takes a function to call after a change and gives one
 * that ends the watching. An effect runs some time after the drawing: what happened in between was told to nobody, so
 * it is read again as soon as somebody listens.
 */
export function useWatched(read, watch) {
  const [value, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read);
    const stop = watch(changed);
    changed();
    return stop;
  }, []);
  return value;
}

export const useStore = (store) => useWatched(() => store.state, (watcher) => store.watch(watcher));

/** The same for an event of the browser's own. */
export const useEvent = (target, name, read) =>
  useWatched(read, (changed) => {
    target.addEventListener(name, changed);
    return () => target.removeEventListener(name, changed);
  });

/** Seconds since the snapshot was told, counted here. */
export function useElapsed(at, counts) {
  const [now, set] = useState(performance.now());
  useEffect(() => {
    set(performance.now());
    if (!counts) return undefined;
    const timer = setInterval(() => set(performance.now()), 1000);
    return () => clearInterval(timer);
  }, [at, counts]);
  return Math.max(0, (now - at) / 1000);
}
