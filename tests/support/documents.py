"""The documents that are made from the code: ``python -m tests.support.documents`` writes them anew."""

from pathlib import Path

import msgspec

from app.api.document import document
from app.api.read import anthropic_fields, embedding_fields, fields, peers
from app.main import create_app
from app.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
TABLES = {
    "completions": fields.COMPLETION,
    "chat": fields.CHAT,
    "responses": fields.RESPONSE,
    "embeddings": embedding_fields.EMBEDDINGS,
    "rerank": embedding_fields.RERANK,
    "messages": anthropic_fields.MESSAGES,
    "peers": peers.PEERS,
}


def openapi() -> bytes:
    """The OpenAPI document."""
    written = create_app(Settings()).openapi_schema.to_schema()
    return msgspec.json.format(msgspec.json.encode(document(written), order="sorted"), indent=1) + b"\n"


def table(rows: tuple[fields.Field, ...]) -> str:
    """A table of request fields, in Markdown."""
    lines = ["| Field | | What it does |", "|---|---|---|"]
    for field in rows:
        harmless = " or ".join(f"`{msgspec.json.encode(value).decode()}`" for value in field.harmless)
        verdict = f"{field.verdict}, but {harmless}" if harmless else field.verdict
        note = field.note
        if isinstance(field, peers.PeerField):
            verdict += " or without a penalty" if harmless and field.penalty else ""
            verdict += ", but without a penalty" if field.penalty and not harmless else ""
            note = f"{note} ({field.of})"
        lines.append(f"| `{field.name}` | {verdict} | {note} |")
    return "\n".join(lines)


def api(text: str) -> str:
    """``docs/api.md`` with its tables made anew."""
    for name, rows in TABLES.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}<!-- {name} -->\n{table(rows)}\n<!-- /{name} -->{after}"
    return text


if __name__ == "__main__":
    (DOCS / "openapi.json").write_bytes(openapi())
    page = DOCS / "api.md"
    page.write_text(api(page.read_text()))
