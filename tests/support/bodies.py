"""Request bodies made from an OpenAPI document: some right, most nearly right, all from a seed."""

import random
from collections.abc import Iterator
from math import nextafter
from typing import Any

import msgspec

PATHS = {
    "/v1/completions": "CompletionRequest",
    "/v1/chat/completions": "ChatRequest",
    "/v1/responses": "ResponseRequest",
}
TEXTS = ("", "a", "Hello", " the", "\n", "\x00", "Grüße 日本語 🙂", "{{ 1/0 }}", "<|im_end|>", "0", "-1", "5m", "null")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 5, 17, 257, 2**31, 2**63 - 1, -(2**63), 2**63, 10**40, 0.5, -0.0, 1e-320, 1e308),
    *("", "x" * 5000, [], [[]], [[[]]], [None], ["a", 1], {}, {"a": None}, {"type": "text"}, {"type": "nothing"}),
    *({"role": "user"}, [{"role": "user", "content": ""}], {"$ref": "#"}, {"1": -100, "2": 100}, {"999999": 1}),
)
GOOD: dict[str, Any] = {
    "prompt": ["Hello", "the"],
    "messages": [{"role": "user", "content": "Hello"}],
    "input": [{"role": "user", "content": "Hello"}],
}
LIMITS = {"prompt": "max_tokens", "messages": "max_tokens", "input": "max_output_tokens"}
RAW = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1e999", b"1180591620717411303424", b'"\\ud800"', b'"\xff"', b"00", b"'a'"),
    *(b"[" * 90 + b"]" * 90, b'{"a":' * 90 + b"1" + b"}" * 90, b'"' + b"y" * 100_000 + b'"', b"[1" * 9, b"\x00"),
)


class Bodies:
    """Bodies for the paths in ``PATHS``, asking ``model``."""

    def __init__(self, document: dict[str, Any], model: str, seed: int) -> None:
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self._model = model
        self._rng = random.Random(seed)  # noqa: S311  not for secrets

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Paths and bodies without end."""
        while True:
            path = self._rng.choice(list(PATHS))
            yield path, self._mutated(self._body(self._schemas[PATHS[path]]["properties"]))

    def _body(self, properties: dict[str, Any]) -> dict[str, Any]:
        required = next(name for name in GOOD if name in properties)
        body: dict[str, Any] = {"model": self._model, LIMITS[required]: self._rng.choice((1, 3, 8))}
        body[required] = self._rng.choice((GOOD[required], self.value(properties[required], 0)))
        for name in self._rng.sample(sorted(properties), self._rng.choice((0, 1, 1, 1, 2, 4))):
            odd = self._rng.random() < 0.25
            body[name] = self._rng.choice(ODD) if odd else self.value(properties[name], 0)
        if self._rng.random() < 0.8:
            body["model"] = self._model
        return body

    def value(self, schema: dict[str, Any], depth: int) -> Any:  # noqa: PLR0911  one for each kind of schema
        """A value that the schema allows, as far as schemas go."""
        rng = self._rng
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        if "anyOf" in schema:
            some = [it for it in schema["anyOf"] if it.get("type") != "null"] if rng.random() < 0.9 else schema["anyOf"]
            return self.value(rng.choice(some), depth)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        match schema.get("type"):
            case "null":
                return None
            case "boolean":
                return rng.random() < 0.5
            case "string":
                return rng.choice(TEXTS)
            case "integer" | "number" as kind:
                return self._number(schema, whole=kind == "integer")
            case "array":
                least, most = schema.get("minItems", 0), min(3, schema.get("maxItems", 3))
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(rng.randint(least, most))]
            case "object":
                return self._object(schema, depth)
            case _:
                return rng.choice(ODD)

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -4))
        high = schema.get("maximum", low + 12)
        if self._rng.random() < 0.3:
            edges: tuple[float, ...] = (low, high)
            return self._rng.choice(edges if whole else (*edges, nextafter(low, high), nextafter(high, low)))
        return self._rng.randint(low, min(high, low + 400)) if whole else self._rng.uniform(low, high)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", [])
        made = {}
        for name, inner in schema.get("properties", {}).items():
            if name in required or (depth < 4 and self._rng.random() < 0.4):
                made[name] = self.value(inner, depth + 1)
        if isinstance(schema.get("additionalProperties"), dict):
            made |= {key: self.value(schema["additionalProperties"], depth + 1) for key in ("1", "a", "007")}
        return made

    def _mutated(self, body: dict[str, Any]) -> bytes:
        rng = self._rng
        if rng.random() < 0.05:
            del body[rng.choice(list(body))]
        encoded = msgspec.json.encode(body)
        if rng.random() < 0.15:
            name = msgspec.json.encode(rng.choice([*body, "seed", "temperature", "unknown"]))
            encoded = encoded[:-1] + b"," + name + b":" + rng.choice(RAW) + b"}"
        if rng.random() < 0.1:
            at = rng.randrange(len(encoded))
            encoded = encoded[:at] + rng.randbytes(1) + encoded[at + rng.randint(0, 2) :]
        return encoded
