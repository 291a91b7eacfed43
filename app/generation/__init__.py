"""From a job and an engine to events: dialects, stop strings, log probabilities as text. No HTTP, no MLX."""
