"""The reference of all settings, written from the structs: ``config/default.toml`` and ``docs/configuration.md``.

``python -m app.settings.reference`` rewrites both files in a checkout; tests fail when they are not up to date.
"""

import textwrap
from pathlib import Path

from app.settings.fields import Field, Kind, model_fields, setting_fields
from app.settings.load import CONFIG
from app.settings.model_entry import ModelEntry
from app.settings.settings_model import Settings
from app.settings.sizes import format_size

DOCUMENT = CONFIG.parent / "docs" / "configuration.md"
_BEGIN, _END = "<!-- settings: begin -->", "<!-- settings: end -->"


def default_toml() -> str:
    """The text of ``config/default.toml``: every setting with its default, its description above it as a comment."""
    head = (
        "# Every setting with its default. Copy what you change into a file of your own and name it with --config.\n"
        "# Written from app/settings/settings_model.py by `./docker-free-run.sh fix`.\n"
    )
    blocks = [
        "\n".join(
            [*textwrap.wrap(field.description, 110, initial_indent="# ", subsequent_indent="# "), _assignment(field)]
        )
        for field in setting_fields().values()
    ]
    return "\n\n".join([head.rstrip("\n"), *blocks]) + "\n"


def tables() -> str:
    """The tables of ``docs/configuration.md``: settings with their spellings, then the keys of ``models.toml``."""
    rows = [
        f"| `{field.name}` | `{field.variable}` | {_flag(field)} | `{written_default(field)}` | "
        f"{field.description} Allowed: {field.allowed}. |"
        for field in setting_fields().values()
    ]
    keys = [f"| `{field.name}` | {field.description} Allowed: {field.allowed}. |" for field in model_fields().values()]
    return "\n".join(
        [
            "| setting | environment | flag | default | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "### Keys of one model in models.toml",
            "",
            "| key | meaning |",
            "|---|---|",
            *keys,
        ]
    )


def written_default(field: Field) -> str:
    """The default of a setting as TOML writes it."""
    return written(field, _default(field))


def document(text: str) -> str:
    """``text`` of ``docs/configuration.md`` with its tables as they should be."""
    head, rest = text.split(_BEGIN)
    _, tail = rest.split(_END)
    return f"{head}{_BEGIN}\n{tables()}\n{_END}{tail}"


def _assignment(field: Field) -> str:
    return f"{field.name} = {written_default(field)}"


def _default(field: Field) -> object:
    return getattr(Settings() if field.name in setting_fields() else ModelEntry(), field.name)


def _flag(field: Field) -> str:
    if field.flag is None:
        return "none"
    match field.kind:
        case Kind.SWITCH:
            return f"`{field.flag}`, `--no-{field.flag[2:]}`"
        case Kind.TEXTS | Kind.PATHS:
            return f"`{field.flag}`, repeatable"
        case _:
            return f"`{field.flag}`"


def written(field: Field, value: object) -> str:
    """A value of a setting as TOML writes it."""
    match value:
        case None:
            return '""' if field.kind is Kind.FILE else '"auto"'
        case bool():
            return "true" if value else "false"
        case int() if field.kind is Kind.SIZE:
            return f'"{format_size(value)}"'
        case int() | float():
            return str(value)
        case tuple():
            return "[" + ", ".join(f'"{item}"' for item in value) + "]"
        case _:
            return f'"{value}"'


def _rewrite(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _rewrite(CONFIG / "default.toml", default_toml())
    _rewrite(DOCUMENT, document(DOCUMENT.read_text(encoding="utf-8")))
