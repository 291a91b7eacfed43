"""How a chat template writes calls whose format has no name, found out by having it write some.

What stands around a call in a conversation is what its model was trained to write. Four kinds are read: an object of
JSON with name and arguments, a name before its arguments in JSON, calls as Python writes them, and tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import takewhile

from app.engine.mlx.text.call_turns import CallTurns, called
from app.engine.mlx.text.turns import Message
from app.engine.text import PROBES, CallWords
from app.errors import InvalidRequest

QUESTION: Message = {"role": "user", "content": "probe of words"}
SAID: Message = {"role": "assistant", "content": "probe"}
ARGUMENTS, RESULT = {"it": "x"}, "probe of a result"
LONGEST = 60
"""Characters that may stand before a call, or behind it."""
TEXT = 'true"'
"""What a tag says of a value that is a text (DeepSeek V3.2: ``string="true"``)."""
_HALF = re.compile(r"[<\[◁][^<>\[\]◁▷\s]*\Z")
_TAG, _GAPS = re.compile(r"<[^<>]*>"), re.compile(r"(?<=>)\s*(?=<)")
_REST = re.compile(r"[^<>\[\]◁▷\s]*[>\]▷]")


def calls_written(render: Callable[[list[Message]], str], turns: CallTurns, ends: Sequence[str]) -> tuple[str, ...]:
    """What is written for one call of a function with the argument ``it``, and for two, where that is taken.

    Their names are ``PROBES``. ``ends`` are the tokens that end an answer; empty where calls are not taken.
    """
    counts = {"many": (1, 2), "one": (1,), "none": ()}[turns.calls]
    return tuple(takewhile(bool, (_written(render, turns, ends, count) for count in counts)))


def call_words_of(written: Sequence[str]) -> CallWords | None:
    """The words around calls; None where they are none of the kinds."""
    if not written:
        return None
    one, two = written[0], written[1] if len(written) > 1 else None
    return _objects(one, two) or _python(one) or _named(one, two) or _tags(one)


def _written(render: Callable[[list[Message]], str], turns: CallTurns, ends: Sequence[str], count: int) -> str:
    """What is written instead of an answer where there are ``count`` calls; nothing where they are lost.

    Some templates write calls only where their results follow, which are cut off by a token that ends an answer.
    """
    calls: list[Message] = [
        {"id": f"probe000{n}", "type": "function", "function": {"name": PROBES[n], "arguments": ARGUMENTS}}
        for n in range(count)
    ]
    asked: list[Message] = [QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}]
    results: list[Message] = [{"role": "tool", "content": RESULT, "tool_call_id": call["id"]} for call in calls]
    for answered in (False, True):
        try:
            plain = render([QUESTION, SAID])
            text = render(called([*asked, *results] if answered else asked, turns))
        except InvalidRequest:
            continue
        section = _between(plain, text.partition(RESULT)[0] if answered else text)
        last = section.rfind(PROBES[count - 1])
        cut = [at for at in (section.find(it, last) for it in ends if it) if at >= 0]
        if last >= 0 and (cut or not answered):
            return section[: min(cut, default=len(section))].rstrip()
    return ""


def _between(plain: str, text: str) -> str:
    """What ``text`` has where ``plain`` has an answer."""
    start = len(_common_begin(plain, text))
    return text[start : len(text) - len(_common_end(plain[start:], text[start:]))].strip()


def _objects(one: str, two: str | None) -> CallWords | None:
    """``{"name": ..., "arguments": {...}}``, perhaps in a list."""
    decoder = json.JSONDecoder()
    for found in re.finditer(r"[{\[]", one):
        try:
            value, end = decoder.raw_decode(one, found.start())
        except ValueError:
            continue
        listed = isinstance(value, list)
        call = value[0] if listed and value else value
        if not isinstance(call, dict):
            continue
        named = next((key for key, it in call.items() if it == PROBES[0]), None)
        key = next((key for key, it in call.items() if it == ARGUMENTS), None)
        before, after = one[: found.start()], one[end:]
        if named is None or key is None or not _is_short(before, after):
            continue
        apart = two is not None and bool(before.strip()) and two.count(before.strip()) > 1
        return CallWords("object", before, after, listed=listed and not apart, named=named, key=key)
    return None


def _python(one: str) -> CallWords | None:
    """``f(it="x")``, perhaps in brackets."""
    found = re.search(rf"\[?{PROBES[0]}\(it=['\"]?x['\"]?\)\]?", one)
    if found is None or not _is_short(one[: found.start()], one[found.end() :]):
        return None
    listed = found[0].startswith("[")
    if not listed and not one[: found.start()].strip():
        return None
    return CallWords("python", one[: found.start()], one[found.end() :], listed=listed)


def _named(one: str, two: str | None) -> CallWords | None:
    """A name, then arguments: what stands between two calls tells what belongs to a call and what to all of them."""
    parts = _parted(one, 1)
    if parts is None or not parts[0].strip() or not _is_short(parts[0], parts[-1]):
        return None
    before, between, after = parts
    both = None if two is None else _parted(two, 2)
    if both is None:
        return CallWords("named", before, after, between=between)
    gap = both[2]
    begin, end = _common_end(gap, before), _common_begin(gap, after)
    if begin == before:
        return CallWords("named", before, after, between=between)
    return CallWords(
        "named", before.removesuffix(begin), after.removeprefix(end), between=between, begin=begin, over=end
    )


def _tags(one: str) -> CallWords | None:
    """A name and arguments between tags, one call in a section or several."""
    found = re.fullmatch(rf"(.*?<.*?){PROBES[0]}(.*?)\bit\b(.*?)\bx\b(.*)", one, re.DOTALL)
    if found is None or not _is_short(found[1], ""):
        return None
    before, name, value, after = found.groups()
    ends = _TAG.findall(after)
    at, key = before.rindex("<"), name.rfind("<")
    if len(ends) not in {2, 3} or key < 0 or _TAG.sub("", after).strip():
        return None
    value, text, kind = value.partition(TEXT)
    several = len(ends) == 3 and bool(before[:at].strip())
    return CallWords(
        "tags",
        before[:at].strip() if several else before.strip(),
        ends[-1] if several else "",
        begin=before[at:] if several else "",
        between=name[:key].strip(),
        key=name[key:],
        value=tuple(_GAPS.split(value.strip())),
        kinds=(text + kind, text.replace("true", "false") + kind) if text else (),
        value_end=ends[0],
        over=ends[1] if several or len(ends) == 2 else ends[1] + ends[2],
        gap="\n" if "\n" in name else "",
        pad="\n" if (kind or value).endswith("\n") else "",
    )


def _parted(text: str, count: int) -> list[str] | None:
    """What stands around the names and arguments of calls, an id being in none of it."""
    arguments = re.escape(json.dumps(ARGUMENTS))
    pattern = "(.*?)".join(f"{PROBES[n]}(.+?){arguments}" for n in range(count))
    found = re.fullmatch(rf"(.*?){pattern}(.*)", text, re.DOTALL)
    return None if found is None or "probe" in "".join(found.groups()) else list(found.groups())


def _is_short(before: str, after: str) -> bool:
    """Whether nothing but a few words or marks stands around a call."""
    return len(before) <= LONGEST and len(after) <= LONGEST


def _common_begin(one: str, other: str) -> str:
    """What both begin with, no mark being cut in two."""
    begin = _common(one, other)
    half = _HALF.search(begin)
    return begin if half is None else begin[: half.start()]


def _common_end(one: str, other: str) -> str:
    """What both end with, likewise."""
    end = _common(one[::-1], other[::-1])[::-1]
    half = _REST.match(end)
    return end if half is None else end[half.end() :]


def _common(one: str, other: str) -> str:
    """What both begin with."""
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
