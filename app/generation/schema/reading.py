"""A client's schema as answers are held to it."""

from typing import Any

from app.generation.schema.checked import checked
from app.generation.schema.closed import closed
from app.generation.schema.keywords import AnySchema
from app.generation.schema.patterns import named
from app.generation.schema.references import local


def read(document: Any) -> AnySchema:
    """What ``document`` means; raises :class:`app.generation.schema.checked.SchemaFault` for what is no JSON schema."""
    return named(local(checked(document)))


def enforced(document: Any) -> AnySchema:
    """The same with its objects closed."""
    return closed(read(document))
