"""Models by name: in requests of every dialect, and in ``GET /v1/models``."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class ModelField(Struct, kw_only=True):
    """The request field that says who is asked. What holds it is looked at before a request is let in."""

    model: (
        Annotated[
            str,
            Meta(
                max_length=512,
                description="An id or alias of GET /v1/models, or any allowed Hugging Face repository "
                "(org/name, org/name@revision); left out, the service's default model.",
            ),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        """A name without a letter is none: forms that are not filled in send one."""
        if self.model is not None and not self.model.strip():
            self.model = None


class ModelCapabilities(Struct, frozen=True, kw_only=True):
    """What a model takes and does here, as far as its files say; images and audio are not served."""

    chat: bool
    completions: bool = True
    tools: bool
    reasoning: bool
    images: bool = False
    audio: bool = False
    embeddings: bool = False
    rerank: bool = False


class ModelCard(Struct, frozen=True, kw_only=True):
    """A name that may be asked for. ``owned_by`` is the organisation in its id.

    ``kind`` says what it is for: ``text`` models generate, ``embedding`` models make vectors, ``rerank`` ones score.
    ``root`` is the id that an alias stands for, else ``id`` itself; ``parent`` the model that an adapter adapts;
    ``aliases`` are entries too. Lengths are tokens, null while no file says: prompt and answer together make at most
    ``context_length``, which is also called ``max_model_len``.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    kind: Literal["text", "embedding", "rerank"] = "text"
    root: str
    parent: str | None
    aliases: tuple[str, ...]
    max_model_len: int | None
    context_length: int | None
    max_output_tokens: int | None
    capabilities: ModelCapabilities


class ModelList(Struct, frozen=True, kw_only=True):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(Struct, frozen=True, omit_defaults=True):
    """Whether the service answers, and takes requests.

    ``models`` are those that are in memory (``ok``), and those whose process has ended again and again (``failing``),
    which are not loaded for a while.
    """

    status: Literal["ok", "loading", "draining"]
    models: dict[str, Literal["ok", "failing"]] = {}
