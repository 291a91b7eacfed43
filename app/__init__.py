"""Switchyard: any MLX language model on Hugging Face, served to OpenAI clients, the model named per request."""

__version__ = "0.1.0"
