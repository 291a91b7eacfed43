"""Computing the KV caches of prompts, in slices."""
