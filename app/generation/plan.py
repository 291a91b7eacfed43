"""How a job's rows are generated and read: thoughts, tool calls and the grammar that holds them."""

from msgspec import structs

from app.engine.grammar import Thoughts
from app.engine.text import Marks, TextFacts
from app.generation import forms
from app.generation.choice import Choice
from app.generation.harmony_form import HarmonyForm
from app.generation.job import ChatJob, CompletionJob, Job, ToolUse
from app.generation.reasoning import ReasoningMachine
from app.generation.tools import harmony
from app.generation.tools.format import Format, Framed
from app.generation.tools.machine import ToolMachine
from app.generation.tools.rules import MARKER
from app.generation.tools.table import GENERIC, formats, own_format
from app.generation.tools.toolbox import Toolbox


class Plan:
    """Made once a job's prompts are known; pure but for :meth:`prepare`.

    ``prompt`` is the text of a rendered conversation: where it ends with a mark of a thought, that is open or over.
    """

    def __init__(self, text: TextFacts, job: Job, prompt: str = "") -> None:
        self._text = text
        self._stops = job.decoding.stop
        self._tells_end = isinstance(job, CompletionJob)
        self._marks: Marks | None = None
        self._format: Format | None = None
        self._use: ToolUse | None = None
        self._open = self._over = False
        self._budget: int | None = None
        self._toolbox = Toolbox(())
        self.grammar = job.decoding.grammar
        self.unenforced: tuple[str, ...] = ()
        """Functions whose calls follow no schema."""
        self._frame: tuple[str, ...] = ()
        self._channels = isinstance(job, ChatJob) and text.call_format == harmony.NAME
        self._prompt = prompt
        if isinstance(job, ChatJob):
            self._frame = text.answer_marks
            self._marks = text.thinking
            self._budget = job.thinking_budget
            if self._marks is not None and not self._channels:
                self._open = prompt.rstrip().endswith(self._marks.start)
                self._over = prompt.rstrip().endswith(self._marks.end)
            if job.tools is not None:
                self._use = structs.replace(job.tools, tools=tuple(tool.held() for tool in job.tools.tools))
                own = own_format(text, job.tools.prompt)
                self._format = formats()[GENERIC] if own is None else own
                self._toolbox = Toolbox(self._use.tools)

    @property
    def thoughts(self) -> Thoughts | None:
        """What the engine must know of thoughts: nothing unless something begins or ends with them."""
        marks = self._marks
        if marks is None or self._over or (self.grammar is None and self._budget is None):
            return None
        if self._channels and self._budget is None:  # its grammar has a place for thoughts
            return None
        return Thoughts(marks.end_ids, () if self._open else marks.start_ids, self._open, self._budget)

    @property
    def keep(self) -> frozenset[int]:
        """Special tokens that are text here: the marks by which thoughts and calls are found."""
        marks = [*self._frame, *(harmony.Harmony.section.strays if self._channels else ())]
        if self._marks is not None and not self._over:
            marks += [self._marks.start, self._marks.end]
        if self._format is not None:
            marks += [self._format.section.start, *self._format.section.strays]
        pieces = {piece for mark in marks for piece in (mark, *MARKER.findall(mark))}
        return frozenset(token for piece in pieces if (token := self._text.added_id(piece)) is not None)

    async def prepare(self, prepare: forms.Prepare) -> None:
        """Have the grammar compiled; raises :class:`app.errors.InvalidRequest` for one that cannot be enforced.

        Functions that are not strict and cannot be held to their schemas are ``unenforced``.
        """
        if self._channels and (self._use is not None or self.grammar is not None):
            use = ToolUse(tools=()) if self._use is None else self._use
            opened = harmony.opened(self._prompt) is not None
            channels = HarmonyForm(harmony.Harmony(), use, self.grammar, self._text.added_id, opened=opened)
            self.grammar, self.unenforced = await channels.compiled(prepare)
        elif self._use is not None and self._format is not None:
            form = forms.CallForm(self._format, self._use, self.grammar, self._text.added_id)
            self.grammar, self.unenforced = await form.compiled(prepare)
        elif self.grammar is not None:
            await prepare(self.grammar)

    def choice(self, index: int) -> Choice:
        """What reads choice ``index``."""
        reasoning: ReasoningMachine | None = None
        tools: ToolMachine | harmony.Channels | None = None
        if self._channels:
            tools = harmony.Channels(self._toolbox, index, self._prompt)
        elif self._marks is not None and not self._over:
            reasoning = ReasoningMachine(self._marks, open=self._open)
        if tools is None and (self._format is not None or self._frame):
            tools = ToolMachine(Framed(self._format, self._frame), self._toolbox, index)
        return Choice(index, self._stops, reasoning=reasoning, tools=tools, tells_end=self._tells_end)
