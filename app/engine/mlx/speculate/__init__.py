"""Speculative decoding: a draft proposes, the model verifies."""
