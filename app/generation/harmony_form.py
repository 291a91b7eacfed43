"""What holds an answer on channels: its thoughts are free, its last message is the answer or a call."""

from collections.abc import Callable

from msgspec import structs

from app.engine.grammar import Grammar
from app.generation.forms import CallForm, answer_rule
from app.generation.job import ToolUse
from app.generation.tools.format import Format
from app.generation.tools.harmony import CHANNEL, CONSTRAIN, MESSAGE, START
from app.generation.tools.rules import Rules
from app.generation.tools.toolbox import Tool, Toolbox

NEXT = f"<|end|>{START}assistant"
"""Between two messages."""


class HarmonyForm(CallForm):
    """The grammar of whole answers, from the first header on; ``opened``, of the rest of a message."""

    def __init__(
        self,
        format: Format,  # noqa: A002  as the base has it
        use: ToolUse,
        answer: Grammar | None,
        added_id: Callable[[str], int | None],
        *,
        opened: bool,
    ) -> None:
        super().__init__(format, use, answer, added_id)
        self._opened = opened

    def _grammar(self, called: tuple[Tool, ...], answer: Grammar | None) -> Grammar:
        if answer is not None and answer.kind == "lark" and not called:
            trigger = "" if self._opened else f"{CHANNEL}final{MESSAGE}"
            return structs.replace(answer, trigger=trigger, once=not self._opened)
        rules = Rules(self._added_id, parallel=False)
        text = rules.token("/(?s:.*)/")
        aside = [
            rules.rule(f"{rules.text(f'{CHANNEL}{name}{MESSAGE}')} {text} {rules.text(NEXT)}")
            for name in ("analysis", "commentary")
        ]
        body = text if answer is None else answer_rule(rules, answer)
        param = "tools" if answer is None else answer.param
        if self._opened and not self._forced:
            return Grammar("lark", rules.grammar(body), param=param)
        kind = f'(" "? {rules.text(CONSTRAIN)} "json")?' if answer is not None else ""
        final = rules.rule(f"{rules.text(f'{CHANNEL}final')} {kind} {rules.text(MESSAGE)} {body}")
        last = [] if self._forced else [final]
        last += [self._format.write(rules, Toolbox(called))] if called else []
        begun = rules.text(f"{START}assistant")  # stands there where a thought has been closed for its budget
        start = rules.rule(f"({begun})? ({rules.one_of(aside)})* {rules.one_of(last)}")
        return Grammar("lark", rules.grammar(start), param=param)
