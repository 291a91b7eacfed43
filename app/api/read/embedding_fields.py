"""What becomes of every field of requests for vectors and scores; see :mod:`app.api.read.fields`."""

from app.api.read.fields import Field

MODEL = Field("model", "honoured", "Named per request; left out, the service's default model, which is for chats.")
KEEP_ALIVE = Field("keep_alive", "honoured", "Seconds or '5m': how long the model stays afterwards; 0 unloads it.")

EMBEDDINGS = (
    MODEL,
    Field("input", "honoured", "A text, up to 2048 texts, token ids as they are, lists of token ids."),
    Field("encoding_format", "honoured", "float, or base64 of 32 bits each, little-endian."),
    Field("dimensions", "honoured", "So many numbers are kept of each vector, which is made of length 1 again."),
    Field("user", "accepted", "No effect: vectors do not depend on who asks."),
    Field("input_type", "honoured", "query or document: the model's own prompt for it, where it has one."),
    Field("prompt_name", "honoured", "One of the model's own prompts by its name."),
    Field("truncate", "honoured", "true or end, start: what is too long is cut there; else it is a 400."),
    KEEP_ALIVE,
)
RERANK = (
    MODEL,
    Field("query", "honoured", "What is looked for."),
    Field("documents", "honoured", "Up to 10,000, each a text or an object with a text."),
    Field("top_n", "honoured", "Only so many of the best; left out, all."),
    Field("return_documents", "honoured", "true: each result has its document."),
    Field("instruction", "honoured", "What the model is to judge by; cross-encoders read none."),
    Field("truncate", "honoured", "true by default: a document that is too long loses its end; false makes it a 400."),
    KEEP_ALIVE,
)
