"""What the service and a model's process say to each other.

Messages are arrays that begin with their kind's name. The first is a :class:`Greeting`, whose ``VERSION`` has to be the
service's. Questions have numbers, which their answers repeat. What rows make in a decode step is one :class:`Step`.
"""

from pathlib import Path

from msgspec import Raw, Struct

from app.engine.base import Item, Sequence
from app.engine.facts import DeviceFacts, Failure, Limits, State
from app.engine.grammar import Grammar
from app.engine.options import LoadOptions
from app.engine.vectors import Embedding, Input, Ranking

VERSION = 1


class Question(Struct, frozen=True, array_like=True):
    """Something that is answered; ``call`` is its number."""

    call: int


class Load(Question, frozen=True, array_like=True, tag="load"):
    """Load a model directory; :class:`ModelFacts`."""

    path: Path
    name: str
    options: LoadOptions


class Adapt(Question, frozen=True, array_like=True, tag="adapt"):
    """Load an adapter over ``base``; :class:`ModelFacts`."""

    base: int
    path: Path
    name: str
    options: LoadOptions


class Unload(Question, frozen=True, array_like=True, tag="unload"):
    """Write what is to be kept on disk, then let an adapter go; None. A base goes with its process."""

    engine: int


class MakeEmbedded(Question, frozen=True, array_like=True, tag="embedded"):
    """Convert the embedded model below ``directory`` unless it is there; its path."""

    directory: str


class ReadTokenizer(Question, frozen=True, array_like=True, tag="tokenizer"):
    """Read the tokenizer of a model that may be loaded next; None."""

    path: str


class Trim(Question, frozen=True, array_like=True, tag="trim"):
    """Free so many bytes of prefix caches, or all there are; None."""

    nbytes: int


class Encode(Question, frozen=True, array_like=True, tag="encode"):
    """Text to ids; list[int]."""

    engine: int
    text: str
    special_tokens: bool


class Count(Question, frozen=True, array_like=True, tag="count"):
    """About how many tokens a text has, up to ``enough``; int."""

    engine: int
    text: str
    enough: int


class FillInMiddle(Question, frozen=True, array_like=True, tag="fim"):
    """A prompt between ``prefix`` and ``suffix``; list[int] or None."""

    engine: int
    prefix: str
    suffix: str


class Decode(Question, frozen=True, array_like=True, tag="decode"):
    """Ids to text; str."""

    engine: int
    ids: tuple[int, ...]


class Spell(Question, frozen=True, array_like=True, tag="spell"):
    """The bytes of each token; list[bytes]."""

    engine: int
    ids: tuple[int, ...]


class RenderChat(Question, frozen=True, array_like=True, tag="render"):
    """Messages through the chat template; :class:`app.engine.text.Rendered`. ``conversation`` is JSON."""

    engine: int
    conversation: bytes


class FindEdges(Question, frozen=True, array_like=True, tag="edges"):
    """Where conversations with a ``head`` begin alike; :class:`app.engine.text.Edges`."""

    engine: int
    head: bytes  # JSON


class Embed(Question, frozen=True, array_like=True, tag="embed"):
    """A vector for each text; :class:`Vectors`."""

    engine: int
    texts: tuple[Input, ...]
    how: Embedding


class Rerank(Question, frozen=True, array_like=True, tag="rerank"):
    """A score for each document; :class:`Scores`."""

    engine: int
    query: str
    documents: tuple[str, ...]
    how: Ranking


class Prepare(Question, frozen=True, array_like=True, tag="prepare"):
    """Compile a grammar; None."""

    engine: int
    grammar: Grammar


class PutBack(Question, frozen=True, array_like=True, tag="back"):
    """Have the rows of a stream wait without their KV caches; None, once these are free."""

    engine: int
    stream: int


class Grant(Struct, frozen=True, array_like=True, tag="grant"):
    """Memory is reserved for so many tokens of a row in all."""

    stream: int
    sequence: int
    row: int
    tokens: int


class Generate(Struct, frozen=True, array_like=True, tag="generate"):
    """Queue sequences, whose ``prompts`` stand apart; what comes of them is told under the number ``stream``."""

    stream: int
    engine: int
    sequences: tuple[Sequence, ...]
    prompts: tuple[bytes, ...]


class CancelRow(Struct, frozen=True, array_like=True, tag="cancel"):
    """End one row of a stream."""

    stream: int
    sequence: int
    row: int


class CloseStream(Struct, frozen=True, array_like=True, tag="close"):
    """End every row of a stream; nothing more is told of it."""

    stream: int


class Withdraw(Struct, frozen=True, array_like=True, tag="withdraw"):
    """Nobody waits any more for the answer to a question; it may come all the same."""

    call: int


class SetLimits(Struct, frozen=True, array_like=True, tag="limits"):
    """From now on."""

    limits: Limits


OfModels = Load | Adapt | Unload | MakeEmbedded | ReadTokenizer | Trim
OfTexts = Encode | Count | FillInMiddle | Decode | Spell | RenderChat | FindEdges
Questions = OfModels | OfTexts | Prepare | Embed | Rerank | PutBack
ToEngine = Questions | Generate | Grant | CancelRow | CloseStream | Withdraw | SetLimits


class Greeting(Struct, frozen=True, array_like=True, tag="greeting"):
    """The first message. mlx-lm is still being imported: :class:`Ready` says when it is."""

    version: int
    device: DeviceFacts


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """Everything is imported."""


class Answer(Struct, frozen=True, array_like=True, tag="answer"):
    """What was asked, as msgpack."""

    call: int
    value: Raw


class Refusal(Struct, frozen=True, array_like=True, tag="refusal"):
    """Why it cannot be answered."""

    call: int
    failure: Failure


class Progress(Struct, frozen=True, array_like=True, tag="progress"):
    """Something has been done that nobody reads about otherwise."""


class Part(Struct, frozen=True, array_like=True):
    """What one stream is told; with ``failure`` it has ended."""

    stream: int
    items: list[Item]
    failure: Failure | None = None


class Step(Struct, frozen=True, array_like=True, tag="step"):
    """What has been made since the last one, and how things stand."""

    parts: list[Part]
    state: State


class Dying(Struct, frozen=True, array_like=True, tag="dying"):
    """The process gives itself up, and why: a device that answers nothing but errors, step after step that failed."""

    reason: str


FromEngine = Greeting | Ready | Answer | Refusal | Progress | Step | Dying
