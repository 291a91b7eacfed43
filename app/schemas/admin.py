"""What ``/admin`` tells of models, memory and requests. Bytes are plain numbers, times are seconds."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

ModelState = Literal["absent", "downloading", "on_disk", "queued", "loading", "resident", "unloading"]
Kind = Literal["text", "embedding", "rerank"]
Source = Literal["embedded", "local", "hub"]
Outcome = Literal["waiting", "running", "answered", "refused", "failed", "left"]
Action = Literal["pull", "load", "unload", "pin", "unpin"]


class AdminTransfer(Struct, frozen=True):
    """Bytes of a download on disk, and in all (0 while that is unknown)."""

    done: int
    total: int


class AdminTogether(Struct, frozen=True, kw_only=True):
    """How a model's rows are computed together, as trying it at load has found; where not, they take turns."""

    prompts: Annotated[bool, Meta(description="Prompts of different lengths are computed as one padded group.")]
    answers: Annotated[bool, Meta(description="Answers decode in one batch.")]
    short: Annotated[bool, Meta(description="Those too whose prompts have a few tokens only.")]
    lengths: Annotated[bool, Meta(description="Rows of different lengths decode in one pass.")]
    ahead: Annotated[bool, Meta(description="A step is built before the tokens that it is for are known.")]


class AdminAbilities(Struct, frozen=True):
    """What a model can do, as its files tell before anything is loaded."""

    context_length: Annotated[int | None, Meta(description="Tokens; null where no file says.")] = None
    chat: bool = False
    tools: Annotated[
        bool, Meta(description="Its template takes tools; other chat models are told of them in words.")
    ] = False
    thinking: Annotated[bool, Meta(description="It may think before it answers.")] = False


class AdminRank(Struct, frozen=True, kw_only=True):
    """One process of a model that lies on several. Bytes as it last told them."""

    rank: int
    pid: int
    host: Annotated[str, Meta(description="Where it runs; empty: on this machine.")]
    resident: Annotated[int, Meta(description="Resident memory.")]
    active: Annotated[int, Meta(description="Live arrays.")]


class AdminModel(Struct, frozen=True, kw_only=True):
    """Where one model stands."""

    id: str
    source: Annotated[Source, Meta(description="Where its files come from; only the hub's are removed here.")]
    state: ModelState
    aliases: tuple[str, ...]
    pinned: Annotated[bool, Meta(description="Never evicted to make room.")]
    download: AdminTransfer | None
    nbytes: Annotated[int, Meta(description="Weights in memory; an estimate while loading.")]
    kv_bytes: Annotated[int, Meta(description="KV cache reserved by the requests that use it.")]
    kv_held: Annotated[int, Meta(description="Of that, what they hold now.")] = 0
    scratch: Annotated[int, Meta(description="Set aside for what computing takes.")] = 0
    beside: Annotated[
        int, Meta(description="What its process holds beside arrays: libraries, tokenizer, grammars.")
    ] = 0
    leases: Annotated[int, Meta(description="Requests that use it now.")]
    queued: Annotated[int, Meta(description="Requests that wait for it.")]
    idle_seconds: Annotated[float | None, Meta(description="Since its last use; null unless resident and unused.")]
    expires_in: Annotated[float | None, Meta(description="Until it is unloaded if nobody asks; null: it stays.")]
    pid: Annotated[int | None, Meta(description="Its process, which adapters share; null: it has none.")] = None
    process: Annotated[int, Meta(description="Resident memory of that process, or of all on this machine.")] = 0
    losses: Annotated[int, Meta(description="How often a process of it has ended unasked.")] = 0
    kind: Annotated[Kind, Meta(description="What it is for: text, vectors or scores.")] = "text"
    together: Annotated[AdminTogether | None, Meta(description="Known of a text model in memory.")] = None
    abilities: AdminAbilities = AdminAbilities()
    ranks: Annotated[tuple[AdminRank, ...], Meta(description="Its processes, where it lies on several.")] = ()


SettingOrigin = Literal[
    "models.toml", "generation_config.json", "config.json", "chat template", "service settings", "default"
]


class AdminSetting(Struct, frozen=True, kw_only=True):
    """One setting of a model that is in force, unless a request says otherwise where it can."""

    name: Annotated[str, Meta(description="As requests, `models.toml` or the service's settings call it.")]
    value: bool | int | float | str | None
    words: Annotated[str, Meta(description="The value in words, where it says little by itself; else empty.")] = ""
    origin: Annotated[SettingOrigin, Meta(description="Where it is written; default: nowhere.")]


class AdminModelSettings(Struct, frozen=True, kw_only=True):
    """What is in force for a model where a request says nothing. A model that does not generate has no first two."""

    id: str
    chat: Annotated[tuple[AdminSetting, ...], Meta(description="For chats, messages and responses.")]
    completion: Annotated[tuple[AdminSetting, ...], Meta(description="For completions, which are raw.")]
    model: Annotated[tuple[AdminSetting, ...], Meta(description="As it is loaded, or will be.")]


class AdminModels(Struct, frozen=True):
    """Every known model, by id."""

    data: tuple[AdminModel, ...]


class AdminMemory(Struct, frozen=True, kw_only=True):
    """The memory budget and what it is used for."""

    machine: Annotated[int, Meta(description="What the machine has for models.")]
    budget: int
    margin: Annotated[int, Meta(description="The part of the budget left to scratch space.")]
    limit: Annotated[int, Meta(description="The budget without its margin.")]
    weights: int
    kv: Annotated[int, Meta(description="KV cache reserved by requests.")]
    kv_held: Annotated[int, Meta(description="Of that, what they hold now.")] = 0
    scratch: Annotated[int, Meta(description="Set aside for what computing takes.")] = 0
    processes: Annotated[int, Meta(description="What models' processes hold beside arrays.")] = 0
    prefix_caches: int
    disk_cache: Annotated[int, Meta(description="Computed prompts of the models in memory on disk; no memory.")] = 0
    active: Annotated[int, Meta(description="Live arrays, measured.")]
    unaccounted: Annotated[int, Meta(description="Measured beyond what is booked and the margin.")]
    queued: Annotated[int, Meta(description="Requests that wait for a model or for memory.")]
    pool: Annotated[int, Meta(description="Freed buffers that are kept for reuse.")]
    process: Annotated[int, Meta(description="Resident memory of the service and of all models' processes.")]
    books_error: Annotated[int, Meta(description="What an idle process held beyond its books, or less, at most.")] = 0
    host_budget: Annotated[int, Meta(description="Of the system's memory, beside a GPU with its own; else 0.")] = 0
    host: Annotated[int, Meta(description="Of that, what is booked for models' processes.")] = 0


class AdminTimings(Struct, frozen=True):
    """Where a request's time went, in seconds; what is left of the whole is the service's own and the client's."""

    queue: Annotated[float, Meta(description="Waiting for its turn and for memory.")] = 0.0
    load: Annotated[float, Meta(description="Waiting for the model to be loaded.")] = 0.0
    prefill: Annotated[float, Meta(description="Computing the prompt; 0 until the answer has ended.")] = 0.0
    decode: Annotated[float, Meta(description="Generating; 0 until the answer has ended.")] = 0.0


class AdminRequest(Struct, frozen=True, kw_only=True):
    """One request for an answer, while it runs and after it."""

    id: Annotated[str, Meta(description="Its X-Request-ID.")]
    at: Annotated[float, Meta(description="When it came, in seconds since 1970.")]
    path: str
    model: str | None
    outcome: Outcome
    status: Annotated[int, Meta(description="HTTP status; 0 before there is one.")]
    seconds: Annotated[float, Meta(description="How long it took; so far, while it runs.")]
    first_token_seconds: float | None
    prompt_tokens: int
    completion_tokens: int
    message: Annotated[str | None, Meta(description="What was said when it was refused or failed.")]
    cached_tokens: Annotated[int, Meta(description="Of the prompt's tokens, those that a prefix cache knew.")] = 0
    timings: Annotated[AdminTimings | None, Meta(description="Null before the model was had.")] = None
    client: Annotated[str | None, Meta(description="The program that asked, by its User-Agent.")] = None
    calls: Annotated[tuple[str, ...], Meta(description="Functions that the answer calls, each once; 16 at most.")] = ()


class Service(Struct, frozen=True, kw_only=True):
    """What does not change while the service runs."""

    version: str
    default_model: str
    offline: Annotated[bool, Meta(description="The hub is never talked to.")] = False


class AdminEvent(Struct, frozen=True, kw_only=True):
    """One event of ``GET /admin/events``: the parts that have changed, each of them whole. The first has all."""

    service: Service | UnsetType = UNSET
    models: tuple[AdminModel, ...] | UnsetType = UNSET
    memory: AdminMemory | UnsetType = UNSET
    requests: tuple[AdminRequest, ...] | UnsetType = UNSET


class PullFile(Struct, frozen=True):
    """Bytes on disk of one file."""

    name: str
    done: int
    size: int


class PullProgress(Struct, frozen=True, kw_only=True):
    """One moment of a download."""

    repo: str
    revision: str
    state: Literal["resolving", "downloading", "verifying", "done", "failed", "cancelled"]
    commit: str | None
    done: int
    total: int
    files: tuple[PullFile, ...]


class AdminFound(Struct, frozen=True, kw_only=True):
    """A model of the hub."""

    id: str
    nbytes: Annotated[int | None, Meta(description="Bytes of its weights; null where the hub does not know.")]
    downloads: Annotated[int, Meta(description="In the last month.")]
    gated: Annotated[bool, Meta(description="Its licence has to be accepted on the hub first.")]
    fits: Annotated[bool | None, Meta(description="Whether its weights alone fit the memory budget; null: not known.")]
    on_disk: bool


class AdminFoundModels(Struct, frozen=True):
    """What the hub lists, most downloaded first."""

    data: tuple[AdminFound, ...]


class Deleted(Struct, frozen=True):
    """A model's files are gone from this machine."""

    id: str
    freed: Annotated[int, Meta(description="Bytes.")]
