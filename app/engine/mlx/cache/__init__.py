"""KV caches: of a batch, in few bits, of earlier prompts."""
