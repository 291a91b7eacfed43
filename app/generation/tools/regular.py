"""A grammar in Lark as one regular expression, so that a JSON string, or any other quoting, can be held to it.

Rules and terminals are put into each other's places. What a grammar nests without end is nested ``DEPTH`` times: a text
of the expression is always one of the grammar, though not the other way round.
"""

from app.generation.tools.lark import Fixed, Irregular, Node, Options, Reference, Repeat, Series, rules

DEPTH = 3
"""How often a rule may stand within itself."""
LONGEST = 40_000
"""Characters of the whole expression."""


def expression(grammar: str) -> str:
    """The regular expression of a grammar's texts, from its rule ``start``. Raises :class:`Irregular`."""
    if len(grammar) > LONGEST:
        raise Irregular("it is too large")
    try:
        known = rules(grammar)
        if "start" not in known:
            raise Irregular("there is no rule named start")
        found = _Expansion(known).of(Reference("start"), ())
    except RecursionError:
        raise Irregular("it is nested too deeply") from None
    if found is None:
        raise Irregular("its rules have no end")
    return found


class _Expansion:
    """Rules in each other's places. Nothing (None) stands for a rule that has no text at this depth."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = rules
        self._made = 0

    def of(self, node: Node, within: tuple[str, ...]) -> str | None:
        """The expression of a node that stands in the rules ``within`` each other."""
        match node:
            case Fixed(text=text):
                return self._counted(text)
            case Reference(name=name):
                if name not in self._rules:
                    raise Irregular(f"there is no rule named {name}")
                return None if within.count(name) >= DEPTH else self.of(self._rules[name], (*within, name))
            case Series(items=items):
                parts = [self.of(item, within) for item in items]
                return None if None in parts else self._counted("".join(part for part in parts if part is not None))
            case Options(items=items):
                found = [it for it in (self.of(item, within) for item in items) if it is not None]
                return self._counted(f"(?:{'|'.join(found)})") if found else None
            case Repeat(item=item, times=times):
                inner = self.of(item, within)
                if inner is None:
                    return "" if times in {"?", "*"} else None
                return self._counted(f"(?:{inner}){times}")

    def _counted(self, text: str) -> str:
        self._made += len(text)
        if len(text) > LONGEST or self._made > 20 * LONGEST:
            raise Irregular("it is too large")
        return text
