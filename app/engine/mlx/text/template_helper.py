"""Renders chat templates in a process of its own: the program behind :mod:`app.engine.mlx.text.template`.

Templates come with models, so they are somebody else's code. They run in Jinja's sandbox, and the process around it
can open no file and no connection, start nothing and take no more than ``MEMORY``; whoever started it ends it when it
takes too long. Nothing of this package is imported here: the program is started by its path.

A message is a length (4 bytes, big endian) and JSON: ``{"template", "variables"}`` in, ``{"text"}`` or ``{"refused"}``
out; the first one out is empty and says that the process is ready. What templates may use beside Jinja's own is what
``transformers`` gives them.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import struct
import sys
import time
from collections import OrderedDict
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY = 1 << 30
MAX_TEXT = 16_000_000
"""Characters that a template may write."""
WARM_UP = "{% macro m(x) %}{{ x }}{% endmacro %}{{ m([1]|tojson|trim) }}{{ strftime_now('%c') }}{{ ''.__class__ }}"
TELLING = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Failures whose words are about the template and its variables."""
KEPT = 8
"""Compiled templates that are kept."""


class Generation(Extension):
    """``{% generation %}`` marks what an assistant said, for training; here it is what stands inside."""

    tags = {"generation"}  # noqa: RUF012  Jinja wants a set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class PlainNamespace(Namespace):
    """A namespace without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace has no {name!r}")
        super().__setitem__(name, value)


def environment() -> ImmutableSandboxedEnvironment:
    """What templates see. Nothing is computed while they are compiled, since that has no limit of output."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[Generation, loopcontrols]
    )
    made.filters["tojson"] = _tojson
    made.globals.clear()
    made.globals |= {
        "range": _range,
        "dict": _dict,
        "namespace": _namespace,
        "raise_exception": _raise,
        "strftime_now": lambda form: datetime.now().strftime(form),  # noqa: DTZ005  templates mean the local day
    }
    return made


def render(templates: OrderedDict[str, Template], made: ImmutableSandboxedEnvironment, asked: Any) -> dict[str, str]:
    """The answer to one message."""
    source = asked["template"]
    try:
        template = templates.pop(source, None) or made.from_string(source)
        templates[source] = template
        if len(templates) > KEPT:
            templates.popitem(last=False)
        pieces, size = [], 0
        for piece in template.generate(**asked["variables"]):
            size += len(piece)
            if size > MAX_TEXT:
                return {"refused": f"it writes more than {MAX_TEXT} characters"}
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except TemplateError as refusal:
        return {"refused": str(refusal)[:2000]}
    except MemoryError:
        return {"refused": "it takes too much memory"}
    except TELLING as failure:
        return {"refused": f"{type(failure).__name__}: {failure}"[:2000]}
    except Exception as failure:  # noqa: BLE001  somebody else's code may raise anything
        return {"refused": type(failure).__name__}


def main() -> None:
    """Answer until the pipe is closed. What Python imports when it is first needed is needed once before the limits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service
    time.tzset()
    made, templates = environment(), OrderedDict[str, Template]()
    for source in (WARM_UP, "{{ nothing.at.all }}", "{{ raise_exception('') }}", "{% broken"):
        render(OrderedDict(), made, {"template": source, "variables": {}})
    _confine()
    _send({})
    while head := sys.stdin.buffer.read(4):
        asked = json.loads(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
        _send(render(templates, made, asked))


def _send(message: dict[str, str]) -> None:
    answer = json.dumps(message).encode()
    sys.stdout.buffer.write(struct.pack(">I", len(answer)) + answer)
    sys.stdout.buffer.flush()


def _confine() -> None:
    """No new file, connection or process from here on; some systems do not know every limit."""
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))


def _range(*bounds: int) -> range:
    made = range(*bounds)
    if len(made) > 100_000:
        raise SecurityError("range is limited to 100000 numbers")
    return made


def _namespace(*given: Any, **named: Any) -> PlainNamespace:
    made = PlainNamespace()
    for name, value in dict(*given, **named).items():
        made[name] = value
    return made


def _dict(*given: Any, **named: Any) -> dict[Any, Any]:
    return dict(*given, **named)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


if __name__ == "__main__":
    main()
