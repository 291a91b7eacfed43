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

/** A model's colour in the memory bar and in the list, by its place among all: neighbours differ most. */
export const hue = (id, models) => (212 + 137.5 * models.findIndex((model) => model.id === id)) % 360;
