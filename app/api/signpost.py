"""What to change about a URL that leads nowhere: the ways in which clients are set up nearly right."""

from collections.abc import Callable, Iterator

Routed = Callable[[str, str], bool]
"""Whether a method and a path are served."""

PEERS = {
    "/api/chat": ("POST", "/v1/chat/completions"),
    "/api/generate": ("POST", "/v1/completions"),
    "/api/embed": ("POST", "/v1/embeddings"),
    "/api/embeddings": ("POST", "/v1/embeddings"),
    "/api/tags": ("GET", "/v1/models"),
    "/api/show": ("GET", "/v1/models/{id}"),
    "/api/ps": ("GET", "/admin/models"),
    "/api/pull": ("POST", "/admin/models/{id}/pull"),
    "/api/delete": ("DELETE", "/admin/models/{id}"),
    "/api/version": ("GET", "/schema/openapi.json"),
    "/api/v1/generate": ("POST", "/v1/completions"),
    "/completion": ("POST", "/v1/completions"),
    "/generate": ("POST", "/v1/completions"),
    "/generate_stream": ("POST", "/v1/completions"),
    "/infill": ("POST", "/v1/completions"),
    "/embedding": ("POST", "/v1/embeddings"),
    "/embed": ("POST", "/v1/embeddings"),
    "/props": ("GET", "/v1/models/{id}"),
    "/info": ("GET", "/v1/models"),
    "/ping": ("GET", "/health"),
    "/version": ("GET", "/schema/openapi.json"),
}
"""Paths of the APIs of Ollama, llama.cpp, KoboldCpp, TGI and vLLM, and what does the same here."""
OLLAMA = "/api/"
WHOLE_PATH = ("messages",)
"""Endpoints whose clients write ``/v1`` themselves."""


def advice(method: str, path: str, origin: str, routed: Routed) -> str:
    """A sentence that says which URL does what ``method`` and ``path`` seem to want; empty if none is known.

    ``origin`` is the service's own, such as ``http://127.0.0.1:8000``.
    """
    asked = "/" + "/".join(part for part in path.lower().split("/") if part)
    if asked in PEERS and routed(*PEERS[asked]):
        there, here = PEERS[asked]
        return f"What it does is done by {there} {here} here."
    for right, tail in _readings(path):
        if right != path and routed(method, right):
            return f"It is {method} {right} here{_base(right, tail, origin)}."
    if asked.startswith(OLLAMA) or asked == OLLAMA.rstrip("/"):
        return f"Ollama's own API is not served; its OpenAI-compatible one is, at {origin}/v1."
    return ""


def _readings(path: str) -> Iterator[tuple[str, str]]:
    """Paths that may have been meant, with their ends as clients append them, the nearest first."""
    parts = [part for part in path.split("/") if part]
    for spelt in dict.fromkeys((tuple(parts), tuple(part.lower() for part in parts))):
        for start in range(len(spelt)):
            tail = "/".join(spelt[start:])
            yield f"/{tail}", tail
            yield f"/v1/{tail}", tail


def _base(right: str, tail: str, origin: str) -> str:
    """What the client's base URL should be, where the path is one that clients make of it."""
    if not right.startswith("/v1/"):
        return ""
    end = tail.removeprefix("v1/")
    base = origin if end.split("/")[0] in WHOLE_PATH else f"{origin}/v1"
    return f": set the client's base URL to {base}"
