// The words for a model's states, and the order in which models are shown.
export const STATES = {
  resident: { label: "in memory", order: 0 },
  loading: { label: "loading", order: 1 },
  unloading: { label: "unloading", order: 1 },
  downloading: { label: "downloading", order: 2 },
  queued: { label: "waits for memory", order: 3 },
  on_disk: { label: "on disk", order: 4 },
  absent: { label: "not on this machine", order: 5 },
};

/** A model's colour in the memory bar and in the list, from its name: the same on every visit. */
export function hue(id) {
  let sum = 0;
  for (const letter of id) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return sum;
}
