"""Any other family that the engine can read: a section is read in one piece once it has ended."""

from collections.abc import Callable
from typing import Any

from app.engine.text import Marks, ParsedCall
from app.errors import InvalidRequest
from app.generation.tools.format import Calls, Section, long_id
from app.generation.tools.rules import Rules
from app.generation.tools.source import Malformed, Source, Steps
from app.generation.tools.toolbox import Toolbox


class Whole:
    """``parse`` reads what stands between ``marks``; without an end mark, all that follows the start."""

    new_id = staticmethod(long_id)

    def __init__(self, marks: Marks, parse: Callable[[str, list[dict[str, Any]]], tuple[ParsedCall, ...]]) -> None:
        self.section = Section(marks.start, (marks.end,) if marks.end else ())
        self._end = marks.end
        self._parse = parse

    def read(self, source: Source, calls: Calls, tools: Toolbox) -> Steps[None]:
        """All calls of the section, each in one piece."""
        pieces: list[str] = []
        if self._end:
            yield from source.stream((self._end,), pieces.append)
        else:
            while not source.closed:
                yield
            pieces.append(source.take(len(source.available)))
        try:
            parsed = self._parse("".join(pieces), [tool.told() for tool in tools.tools])
        except ValueError:
            raise Malformed from None
        if not parsed or not all(tools.knows(call.name) for call in parsed):
            raise Malformed
        for call in parsed:
            calls.begin(call.name)
            calls.arguments(call.arguments)

    def write(self, rules: Rules, tools: Toolbox) -> str:  # noqa: ARG002  as other formats are asked
        """There is no grammar for a format that is not known here."""
        raise InvalidRequest(
            "This model's calls cannot be forced: use tool_choice auto, or name another model.",
            param="tool_choice",
            code="tool_choice_not_supported",
        )
