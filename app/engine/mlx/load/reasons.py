"""Why a model cannot be loaded, in words for whoever put its files there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_config

from app.engine.mlx.text.tokenizer_cache import TokenizerUnreadable
from app.engine.paths import cache_home

POINTER = b"version https://git-lfs"
"""How a file begins that stands in for another in a git repository (git-lfs)."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")
"""Any of which a tokenizer can be read from."""
NAMED = 3
"""Parameters that are named of those that are missing or too many."""
LONGEST = 300
"""Letters of a failure's own words."""
MOST_SHARDS = 1000
_SHARD = re.compile(r"(.*)-\d+-of-(\d+)\.safetensors")
_PARAMETERS = re.compile(r"(Missing|Received) (\d+) parameters[^:]*: (.*)\.$")
_WANTED = re.compile(r"__init__\(\) missing \d+ required positional arguments?: (.*)")
_NAMES = re.compile(r"'(\w+)'")
_INSTALLED_BY = re.compile(r"pip install ([\w.-]+)")
QUANTISATION = (("group_size",), ("bits",), ("quant_method",))
"""Members that mlx-lm reads of a quantisation."""
_OWN_CODE = re.compile(r"custom (code|module)|trust_remote_code")


class Unbuilt(ValueError):
    """What mlx-lm refused while it made a model of its files, in its own words."""


BUILDING = (Unbuilt, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, NotImplementedError)
"""What mlx-lm's models raise for configurations that describe none of them."""


class Undescribed(ValueError):
    """A config.json that says what no model can be made of; its message is told as it is."""


def read_config(path: Path) -> dict[str, Any]:
    """config.json, with the ends of answers that generation_config.json names; raises :class:`Undescribed`."""
    try:
        config: dict[str, Any] = load_config(path)
    except FileNotFoundError as failure:
        raise Undescribed("it has no config.json") from failure
    except (ValueError, RecursionError) as failure:
        raise Undescribed(f"its config.json cannot be read ({_message(failure, path)})") from failure
    except (AttributeError, TypeError) as failure:
        raise Undescribed("its config.json or generation_config.json is no JSON object") from failure
    if not isinstance(config, dict):
        raise Undescribed("its config.json is no JSON object")
    if not isinstance(config.get("model_type"), str):
        raise Undescribed("its config.json has no model_type, so its architecture is unknown")
    if config.get("model_file") is not None:
        raise Undescribed("its config.json asks for Python code of its own (model_file), which is never run here")
    if not isinstance(config.get("text_config", {}), dict):
        raise Undescribed("text_config in its config.json is no JSON object")
    ends = config.get("eos_token_id")
    if not all(type(it) is int for it in (ends if isinstance(ends, list) else [] if ends is None else [ends])):
        raise Undescribed(
            f"its eos_token_id is {json.dumps(ends):.80}, which is neither a token's number nor a list of them"
        )
    return config


def reason(failure: BaseException, path: Path) -> str:
    """The failure in one line, without the place on disk: a file that is the cause of it before what it caused."""
    why = _message(failure, path)
    parameters = _PARAMETERS.search(" ".join(str(failure).split()))
    if pointer := next(_pointers(path), None):
        why = f"its {pointer} is a git-lfs pointer, which stands in for the file itself: run `git lfs pull` there"
    elif isinstance(failure, TokenizerUnreadable):
        why = _of_tokenizer(why, path)
    elif parameters is not None:
        why = _of_parameters(parameters[1], int(parameters[2]), parameters[3].split(", "), path)
    elif isinstance(failure, SystemExit):
        why = _of_package(failure, path)
    elif "Model type" in why or "has no attribute 'Model'" in why:
        why = f"{_architecture(path)} is no architecture that mlx-lm knows"
    elif (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        why = f"its adapter_config.json does not describe an adapter for this model ({why})"
    elif isinstance(failure, BUILDING):
        why = _of_building(failure, why, path)
    return "".join(it if it.isprintable() else ascii(it)[1:-1] for it in why)


def _message(failure: BaseException, path: Path) -> str:
    text = str(failure)
    if isinstance(failure, OSError) and failure.strerror is not None:
        text = failure.strerror if failure.filename is None else f"{failure.strerror}: {Path(failure.filename).name}"
    elif not text or isinstance(failure, KeyError):
        text = f"{type(failure).__name__} {text}"
    for place, name in ((path, "the model's directory"), (cache_home(), "the cache")):
        text = text.replace(str(place), name)
    text = " ".join(text.split())
    return text[:LONGEST].rstrip(". ")


def _pointers(path: Path) -> Iterator[str]:
    for file in sorted(path.glob("*")):
        try:
            with file.open("rb") as stream:
                if stream.read(len(POINTER)) == POINTER:
                    yield file.name
        except OSError:
            continue


def _of_tokenizer(why: str, path: Path) -> str:
    if not any((path / name).is_file() for name in TOKENIZERS) and not any(path.glob("*.tiktoken")):
        return f"it has no tokenizer: none of {', '.join(TOKENIZERS)} is in its directory"
    if _OWN_CODE.search(why):
        return "its tokenizer asks for Python code of its own, which is never run here"
    if why.lower().startswith(("validation error", "class validation error")):
        return f"its config.json does not describe a {_architecture(path)} as transformers knows it ({why})"
    return f"its tokenizer cannot be read ({why})"


def _of_building(failure: BaseException, why: str, path: Path) -> str:
    if wanted := _WANTED.search(why):
        return f"its config.json lacks what a {_architecture(path)} needs: {', '.join(_NAMES.findall(wanted[1]))}"
    if isinstance(failure, KeyError) and failure.args in QUANTISATION:
        return f"quantization in its config.json has no {failure.args[0]}"
    if why.startswith("Expected shape"):
        return f"its weights are not of the shapes that its config.json tells ({why})"
    return f"its config.json does not describe a {_architecture(path)} that can be built ({why})"


def _of_package(failure: SystemExit, path: Path) -> str:
    """A module of mlx-lm's that ends the process where it finds no package says in its text what brings that."""
    missing = failure.__context__
    name = missing.name if isinstance(missing, ImportError) else None
    why = f"{_architecture(path)} is an architecture for which mlx-lm needs the Python package {name or 'of another'}"
    spec = find_spec(f"mlx_lm.models.{_architecture(path).strip(chr(39))}")
    source = "" if spec is None or spec.origin is None else Path(spec.origin).read_text(encoding="utf-8")
    brought = _INSTALLED_BY.search(source)
    return why if brought is None else f"{why}, which is not here: `pip install {brought[1]}` brings it"


def _of_parameters(way: str, number: int, names: list[str], path: Path) -> str:
    missing = way == "Missing"
    if missing and (gone := _gone(path)):
        more = f" and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
        return f"{', '.join(gone[:NAMED])}{more}, with some of its weights, is not in its directory"
    more = f" and {number - NAMED} more" if number > NAMED else ""
    if missing:
        return f"its weights lack what its config.json calls for: {', '.join(names[:NAMED])}{more}"
    some = f"{', '.join(names[:NAMED])}{more}"
    return f"its weights hold what a {_architecture(path)} by its config.json has no place for: {some}"


def _gone(path: Path) -> list[str]:
    """Files of weights that the index, or the names of the others, promise and that are not there."""
    try:
        promised = set(json.loads((path / "model.safetensors.index.json").read_bytes())["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        promised = set()
    for shard in filter(None, (_SHARD.fullmatch(file.name) for file in path.glob("model*.safetensors"))):
        begin, many = shard.groups()
        numbers = range(1, min(int(many), MOST_SHARDS) + 1)
        promised |= {f"{begin}-{number:0{len(many)}}-of-{many}.safetensors" for number in numbers}
    return sorted(name for name in promised if isinstance(name, str) and not (path / name).is_file())


def _architecture(path: Path) -> str:
    try:
        return f"'{load_config(path)['model_type']}'"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "model"
