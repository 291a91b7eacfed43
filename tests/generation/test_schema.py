"""JSON schemas of clients: what is none, nulls and older drafts, references, closed objects, patterns of few names."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.generation.schema.checked import SchemaFault, checked
from app.generation.schema.members import members, plain, types
from app.generation.schema.patterns import meant
from app.generation.schema.reading import enforced, read
from app.generation.schema.references import within

A = {"type": "object", "properties": {"a": {"type": "integer"}}}
B = {"type": "object", "properties": {"b": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], ()),
        ("object", ()),
        ({"type": "strin"}, ("type",)),
        ({"type": []}, ("type",)),
        ({"type": 3}, ("type",)),
        ({"properties": []}, ("properties",)),
        ({"properties": {"a": 3}}, ("properties", "a")),
        ({"properties": {"a": {"items": {"type": "any"}}}}, ("properties", "a", "items", "type")),
        ({"required": "a"}, ("required",)),
        ({"required": True}, ("required",)),
        ({"required": [1]}, ("required",)),
        ({"anyOf": {}}, ("anyOf",)),
        ({"anyOf": []}, ("anyOf",)),
        ({"allOf": [None]}, ("allOf", "0")),
        ({"enum": "a"}, ("enum",)),
        ({"minLength": -1}, ("minLength",)),
        ({"maxItems": 1.5}, ("maxItems",)),
        ({"minimum": "1"}, ("minimum",)),
        ({"multipleOf": 0}, ("multipleOf",)),
        ({"pattern": ["a"]}, ("pattern",)),
        ({"$ref": {}}, ("$ref",)),
        ({"uniqueItems": "yes"}, ("uniqueItems",)),
        ({"additionalProperties": "no"}, ("additionalProperties",)),
        ({"patternProperties": {"^a": []}}, ("patternProperties", "^a")),
        ({"dependentRequired": {"a": "b"}}, ("dependentRequired", "a")),
        ({"items": [{"type": "x"}]}, ("items", "0", "type")),
    ],
)
def test_what_is_no_json_schema_is_told_with_its_place(
    document: str | list[Any] | dict[str, Any], path: tuple[str, ...]
) -> None:
    with pytest.raises(SchemaFault) as fault:
        checked(document)
    assert fault.value.path == path
    assert str(fault.value).startswith(".".join(path))


def test_a_schema_that_is_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(SchemaFault, match="nested too deeply"):
        checked(schema)


def test_null_is_absence_wherever_a_keyword_stands() -> None:
    keywords = (
        "required",
        "properties",
        "items",
        "enum",
        "anyOf",
        "minimum",
        "pattern",
        "$ref",
        "additionalProperties",
    )
    nulls = dict.fromkeys(keywords)
    assert checked(nulls) == {}
    assert checked({"properties": {"a": nulls, "b": None}, "title": None}) == {"properties": {"a": {}, "b": {}}}
    assert checked({"const": None, "default": None, "enum": [None]}) == {"const": None, "default": None, "enum": [None]}
    assert checked({"properties": {"required": {"type": "null"}}}) == {"properties": {"required": {"type": "null"}}}


def test_older_drafts_are_spelt_as_today() -> None:
    assert checked({"minimum": 0, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False}) == {
        "exclusiveMinimum": 0,
        "maximum": 9,
    }
    assert checked({"items": [A, True], "additionalItems": False}) == {"prefixItems": [A, True], "items": False}
    assert checked({"dependencies": {"a": ["b"], "c": A}}) == {
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"c": A},
    }
    assert checked({"maxLength": 3.0}) == {"maxLength": 3}


def test_references_become_pointers() -> None:
    schema = {
        "$id": "https://x.org/s",
        "$defs": {"n": {"$anchor": "name", "type": "string"}, "A<B>/c": {"$id": "inner", "type": "null"}},
        "properties": {
            "a": {"$ref": "#name"},
            "b": {"$ref": "inner"},
            "c": {"$ref": "#/$defs/A<B>~1c"},
            "d": {"$ref": "https://x.org/s#/$defs/n"},
            "e": {"$dynamicRef": "#name"},
            "$ref": {"type": "string"},
        },
    }
    told = read(schema)
    assert isinstance(told, dict)
    assert [it.get("$ref", it) for it in told["properties"].values()] == [
        "#/$defs/n",
        "#/$defs/A%3CB%3E~1c",
        "#/$defs/A%3CB%3E~1c",
        "#/$defs/n",
        "#/$defs/n",
        {"type": "string"},
    ]
    assert types(told["properties"]["c"], told) == {"null"}


def test_a_part_takes_along_what_its_references_mean() -> None:
    root: dict[str, Any] = {
        "properties": {"a": {"type": "integer"}, "b": {"items": {"$ref": "#/properties/a"}}, "c": {"$ref": "#"}}
    }
    cases: tuple[tuple[dict[str, Any], Any, Any], ...] = (
        (root["properties"]["b"], [1], ["x"]),
        ({"$ref": "#"}, {"a": 1}, {"c": {"a": "x"}}),
    )
    for part, good, bad in cases:
        alone = Draft202012Validator(within(part, root))
        assert alone.is_valid(good)
        assert not alone.is_valid(bad)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (A, {"a": 1}, {"a": 1, "z": 1}),
        ({"properties": {"o": A}}, {"o": {"a": 1}}, {"o": {"z": 1}}),
        ({"items": A}, [{"a": 1}], [{"z": 1}]),
        ({"prefixItems": [A]}, [{"a": 1}], [{"z": 1}]),
        ({"anyOf": [A, {"type": "null"}]}, {"a": 1}, {"z": 1}),
        ({"oneOf": [A, B]}, {"b": 1}, {"z": 1}),
        ({"$defs": {"A": A}, "$ref": "#/$defs/A"}, {"a": 1}, {"z": 1}),
        ({"$defs": {"A": A}, "items": {"$ref": "#/$defs/A"}}, [{"a": 1}], [{"z": 1}]),
        ({"allOf": [A, B]}, {"a": 1, "b": 2}, {"a": 1, "z": 2}),
        ({"allOf": [A], "properties": {"b": True}}, {"a": 1, "b": 2}, {"a": 1, "z": 2}),
        ({"$defs": {"A": A}, "allOf": [{"$ref": "#/$defs/A"}, B]}, {"a": 1, "b": 2}, {"a": 1, "z": 2}),
        ({"$defs": {"A": A}, "$ref": "#/$defs/A", "properties": {"b": True}}, {"a": 1, "b": 2}, {"z": 2}),
        (A | {"anyOf": [{"required": ["a"]}, {"properties": {"b": True}}]}, {"a": 1}, {"a": 1, "z": 2}),
        (A | {"anyOf": [{"required": ["a"]}, {"properties": {"b": True}}]}, {"b": 1}, {"b": 1, "z": 2}),
        (
            A | {"anyOf": [{"properties": {"b": True}}], "oneOf": [{"properties": {"c": True}}]},
            {"b": 1, "c": 2},
            {"z": 2},
        ),
        ({"allOf": [{"anyOf": [A, B]}, {"properties": {"c": True}}]}, {"b": 1, "c": 2}, {"b": 1, "z": 2}),
        (A | {"required": ["u"]}, {"u": "any"}, {"u": 1, "z": 2}),
        (A | {"patternProperties": {"^x": {"type": "null"}}}, {"xy": None}, {"z": None}),
        (A | {"patternProperties": {"^a$": {"minimum": 3}}}, {"a": 3}, {"a": 2}),
        (A | {"unevaluatedProperties": False, "allOf": [B]}, {"a": 1, "b": 2}, {"z": 2}),
        (A | {"additionalProperties": None}, {"a": 1}, {"z": 2}),
        (A | {"additionalProperties": {"type": "null"}}, {"z": None}, {"z": 2}),
        ({"properties": {"o": {"type": "object"}}}, {"o": {"any": 1}}, {"z": 1}),
        (
            {"$defs": {"A": A | {"additionalProperties": True}}, "allOf": [{"$ref": "#/$defs/A"}, B]},
            {"z": 1},
            {"a": ""},
        ),
    ],
)
def test_objects_have_the_names_that_are_said_and_no_others(
    schema: dict[str, Any], good: list[dict[str, int]] | dict[str, Any], bad: list[dict[str, int]] | dict[str, Any]
) -> None:
    validator = Draft202012Validator(enforced(schema))
    assert validator.is_valid(good)
    assert not validator.is_valid(bad)


def test_recursive_schemas_are_closed() -> None:
    tree = {"properties": {"v": True, "next": {"allOf": [{"$ref": "#"}], "description": "more"}}}
    validator = Draft202012Validator(enforced(tree))
    assert validator.is_valid({"v": 1, "next": {"v": 2}})
    assert not validator.is_valid({"v": 1, "z": 2})
    assert not validator.is_valid({"next": {"z": 2}})


def test_schemas_that_refer_in_circles_or_grow_without_end_come_to_an_end() -> None:
    enforced({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, A]}}, "allOf": [{"$ref": "#/$defs/a"}]})
    doubling = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2, "properties": {f"p{n}": {}}} for n in range(1, 60)
    }
    enforced({"$defs": {"d0": A, **doubling}, "allOf": [{"$ref": "#/$defs/d59"}]})
    assert types({"$ref": "#"}, {"$ref": "#"}) == set()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("^a$", ["a"]),
        ("^(a|b)c?$", ["ac", "a", "bc", "b"]),
        ("^a$|^b$", ["a", "b"]),
        (r"^\$top$", ["$top"]),
        ("^x[0-2]$", ["x0", "x1", "x2"]),
        ("^[ab]{2}$", ["aa", "ab", "ba", "bb"]),
        ("^(?:x)$", ["x"]),
        ("a", None),
        ("^a", None),
        ("^a+$", None),
        ("^a.$", None),
        (r"^\d$", None),
        ("^[a-z]{3}$", None),
        ("^(a", None),
        ("^(?=a)a$", None),
        ("^[^a]$", None),
    ],
)
def test_a_pattern_of_few_names_is_those_names(pattern: str, names: list[str] | None) -> None:
    found = meant(pattern)
    assert (found if found is None else sorted(found)) == (names if names is None else sorted(names))


def test_an_object_is_told_with_all_that_applies_to_it() -> None:
    root = enforced({"$defs": {"A": A}, "allOf": [{"$ref": "#/$defs/A"}, B | {"required": ["b"]}], "required": ["u"]})
    found = members(root, root)
    assert set(found.properties) == {"a", "b", "u"}
    assert found.required == {"b", "u"}
    assert found.others == ()
    assert types(found.properties["a"], root) == {"integer"}


def test_conditions_on_one_value_are_put_together() -> None:
    root = {"$defs": {"s": {"type": "string", "maxLength": 5}}}
    told = plain({"allOf": [{"$ref": "#/$defs/s"}, {"maxLength": 3, "pattern": "a"}], "pattern": "b"}, root)
    assert (told["type"], told["maxLength"], sorted(told["patterns"])) == ("string", 3, ["a", "b"])
    assert types({"allOf": [{"type": ["string", "number"]}, {"type": ["integer", "null"]}]}, {}) == {"integer"}
