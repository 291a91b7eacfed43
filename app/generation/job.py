"""What is to be generated, with every default resolved: the only thing that ``api`` hands to ``generation``."""

from typing import Any, Literal

from msgspec import Struct, structs

from app.engine.grammar import Grammar
from app.generation.tools.toolbox import Tool
from app.schemas.messages import Message
from app.schemas.sampling import Sampling, SamplingDefaults

ToolPrompt = Literal["generic", "refuse"]


class Decoding(Struct, frozen=True, kw_only=True):
    """How every choice of a job is generated.

    ``max_tokens`` is an upper bound; None means: as many as the model's context holds. ``n`` choices are
    answered for each prompt, the best of ``best_of`` by mean log probability.
    ``logprobs`` is the number of alternatives (None: no logprobs). ``stop`` strings end a choice and never
    appear in it. ``grammar`` holds the answer, but for thoughts and tool calls. ``left_open`` names the fields of
    ``sampling`` that neither request nor settings say anything of: in a chat the model's own defaults hold for them.
    """

    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    n: int = 1
    best_of: int = 1
    logprobs: int | None = None
    grammar: Grammar | None = None
    left_open: frozenset[str] = frozenset()

    @property
    def ranked(self) -> bool:
        """Whether more choices are generated than answered."""
        return self.best_of > self.n


class CompletionJob(Struct, frozen=True, kw_only=True):
    """Continue raw text: no chat template. Each prompt is text or token ids."""

    decoding: Decoding
    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool = False
    suffix: str | None = None


class ToolUse(Struct, frozen=True, kw_only=True):
    """The functions that the model is told of, and how it may call them.

    ``named`` is the one that it must call; ``required`` says that it must call one. ``prompt`` is the model's setting:
    whether they are told in the system message where (None) or although (``generic``) its template could tell of
    them, or never (``refuse``).
    """

    tools: tuple[Tool, ...]
    required: bool = False
    named: str | None = None
    parallel: bool = True
    prompt: ToolPrompt | None = None


class ChatJob(Struct, frozen=True, kw_only=True):
    """Answer a conversation through the model's chat template.

    ``variables`` are handed to the template as they are (``chat_template_kwargs``). ``thinking_budget`` is the number
    of tokens after which a thought is closed. ``field`` is the request field that the conversation came in; one that is
    ``truncated`` does without its oldest messages where the context cannot hold them.
    """

    decoding: Decoding
    messages: tuple[Message, ...]
    continue_final: bool = False
    variables: dict[str, Any] = {}
    tools: ToolUse | None = None
    thinking_budget: int | None = None
    field: str = "messages"
    truncated: bool = False


Job = CompletionJob | ChatJob


def sampling_in_force(job: Job, theirs: SamplingDefaults) -> Sampling:
    """How its tokens are drawn: in a chat, what nobody has said anything of is as the model's authors have it."""
    if isinstance(job, CompletionJob):
        return job.decoding.sampling
    given = {
        name: it for name, it in structs.asdict(theirs).items() if it is not None and name in job.decoding.left_open
    }
    return structs.replace(job.decoding.sampling, **given)
