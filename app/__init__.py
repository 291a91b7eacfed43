"""Switchyard: any MLX language model on Hugging Face, served to OpenAI's and Anthropic's clients, named per request."""

__version__ = "0.2.0"
