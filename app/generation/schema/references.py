"""What ``$ref`` means: every reference as a JSON pointer into the document, and what stands there."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urldefrag, urljoin

from app.generation.schema.keywords import NAMED, ONE, SEVERAL, AnySchema, Schema, rebuilt

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
IDENTIFIERS = ("$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$schema")


def local(root: AnySchema) -> AnySchema:
    """``root`` with references by identifier or anchor turned into pointers, and both gone.

    What leads out of the document stays as it is.
    """
    if not isinstance(root, dict):
        return root
    places = dict(_places(root))
    base = _identifier(root)

    def change(_: str, schema: AnySchema) -> AnySchema:
        if not isinstance(schema, dict):
            return schema
        made = rebuilt(schema, change)
        for key in REFERENCES:
            reference = made.pop(key, None)
            if isinstance(reference, str):
                made["$ref"] = _pointer(reference, base, places)
        for key in IDENTIFIERS:
            if key != "id" or isinstance(made.get(key), str):
                made.pop(key, None)
        return made

    return change("", root)


def target(reference: str, root: AnySchema) -> AnySchema | None:
    """The schema that a pointer leads to; None where there is none."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    place: Any = root
    for part in reference[2:].split("/") if len(reference) > 1 else ():
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and name in place:
            place = place[name]
        elif isinstance(place, list) and name.isdecimal() and len(name) < 6 and int(name) < len(place):
            place = place[int(name)]
        else:
            return None
    return place if isinstance(place, dict | bool) else None


def within(schema: AnySchema, root: AnySchema) -> AnySchema:
    """A part of ``root`` that stands alone: what its references mean comes along."""
    names: dict[str, str] = {}

    def change(_: str, inner: AnySchema) -> AnySchema:
        if not isinstance(inner, dict):
            return inner
        made = rebuilt({key: it for key, it in inner.items() if key not in ("$defs", "definitions")}, change)
        reference = made.get("$ref")
        if isinstance(reference, str) and target(reference, root) is not None:
            made["$ref"] = f"#/$defs/{names.setdefault(reference, str(len(names)))}"
        return made

    made = change("", schema)
    meant: Schema = {}
    while len(meant) < len(names):
        reference = list(names)[len(meant)]
        found = target(reference, root)
        meant[names[reference]] = True if found is None else change("", found)
    return {**made, "$defs": meant} if isinstance(made, dict) and meant else made


def _places(schema: AnySchema, pointer: str = "#", base: str = "") -> Iterator[tuple[str, str]]:
    """Each identifier and each anchor with the pointer to it."""
    if not isinstance(schema, dict):
        return
    if _identifier(schema):
        base = urljoin(base, _identifier(schema))
        yield base.rstrip("#"), pointer
    for key in ("$anchor", "$dynamicAnchor"):
        if key in schema:
            yield f"#{schema[key]}", pointer
            yield f"{base}#{schema[key]}", pointer
    for path, inner in _inner(schema):
        steps = "/".join(quote(step.replace("~", "~0").replace("/", "~1"), safe="~$") for step in path)
        yield from _places(inner, f"{pointer}/{steps}", base)


def _inner(schema: Schema) -> Iterator[tuple[tuple[str, ...], AnySchema]]:
    """The schemas right inside, with the way to them."""
    for key, value in schema.items():
        if key in ONE:
            yield (key,), value
        elif key in SEVERAL:
            yield from (((key, str(at)), inner) for at, inner in enumerate(value))
        elif key in NAMED:
            yield from (((key, name), inner) for name, inner in value.items())


def _identifier(schema: Schema) -> str:
    """``$id``, or draft 4's ``id``."""
    found = schema.get("$id", schema.get("id"))
    return found if isinstance(found, str) and not found.startswith("#") else ""


def _pointer(reference: str, base: str, places: dict[str, str]) -> str:
    if reference == "#" or reference.startswith("#/"):
        return _spelt(reference)
    for spelt in (reference, urljoin(base, reference)):
        document, fragment = urldefrag(spelt)
        if spelt.rstrip("#") in places:
            return places[spelt.rstrip("#")]
        if document in places and fragment.startswith("/"):
            return places[document] + _spelt(fragment)
    return reference


def _spelt(pointer: str) -> str:
    """As URIs are spelt: names may be sent as they are."""
    return quote(unquote(pointer), safe="#/~$&'()*+,;=:@!")
