"""What the registry tells of itself: frozen snapshots for listings and for admin routes. No behaviour."""

from typing import Literal

from msgspec import Struct

from app.engine.facts import Books, Together
from app.engine.kind import Kind
from app.engine.ranks import RankState
from app.engine.work import Work
from app.registry.abilities import Abilities
from app.settings import ModelEntry

State = Literal["absent", "downloading", "on_disk", "queued", "loading", "resident", "unloading"]
Origin = Literal["embedded", "local", "hub"]


class ModelCard(Struct, frozen=True, kw_only=True):
    """A name that may be asked for. ``created`` is in seconds since 1970.

    ``root`` is the id that an alias stands for, else ``id`` itself; ``parent`` the model that an adapter adapts.
    ``entry`` is what the settings say of it, ``loaded`` what they said when it was brought into memory (None: it is
    not there).
    """

    id: str
    created: int
    owned_by: str
    root: str
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    abilities: Abilities = Abilities()
    entry: ModelEntry = ModelEntry()
    loaded: ModelEntry | None = None


class Transfer(Struct, frozen=True):
    """Bytes of a download on disk, and in all (0 while that is unknown)."""

    done: int
    total: int


class ModelStatus(Struct, frozen=True, kw_only=True):
    """Where one model stands.

    ``nbytes`` are its weights in memory (estimated while loading), ``kv_bytes`` the caches reserved by its
    ``leases``, ``kv_held`` what they hold of these; ``scratch`` is set aside for computing, ``beside`` for what its
    process holds beside arrays; ``queued`` counts the requests that wait. ``idle_seconds`` have passed since its last
    use; after ``expires_in`` seconds without another it is unloaded (None: it stays). ``pid`` is its process, which
    holds ``process`` bytes of resident memory; ``losses`` counts how often one has ended unasked. ``together`` is how
    its rows are computed together, None unless it is in memory and generates text; ``abilities`` is what its files say.
    its rows are computed together, None unless it is in memory and generates text. ``ranks`` are
    its processes where it lies on several.
    """

    id: str
    source: Origin
    state: State
    aliases: tuple[str, ...] = ()
    pinned: bool = False
    download: Transfer | None = None
    nbytes: int = 0
    kv_bytes: int = 0
    kv_held: int = 0
    scratch: int = 0
    beside: int = 0
    leases: int = 0
    queued: int = 0
    idle_seconds: float | None = None
    expires_in: float | None = None
    pid: int | None = None
    process: int = 0
    losses: int = 0
    kind: Kind = "text"
    together: Together | None = None
    abilities: Abilities = Abilities()
    ranks: tuple[RankState, ...] = ()


class FoundModel(Struct, frozen=True, kw_only=True):
    """A model of the hub: ``nbytes`` of weights, None where the hub does not know, and whether they fit the budget."""

    id: str
    nbytes: int | None
    downloads: int
    gated: bool
    fits: bool | None
    on_disk: bool


class MemoryStatus(Struct, frozen=True, kw_only=True):
    """The budget and what it is used for, in bytes.

    ``limit`` is the budget without its ``margin``; ``weights``, ``kv``, ``scratch`` (what computing takes) and
    ``processes`` (what models' processes hold beside arrays) are booked, ``kv_held`` and ``prefix_caches`` held,
    ``active`` is what the gauge measures, and ``unaccounted`` what of it nothing was booked for beyond the margin.
    ``disk_cache`` is what resident models keep on disk of prompts, and no memory. Where models have a memory of their
    own, processes may have ``host_budget`` bytes of the system's, and ``host`` of them are booked; else both are 0.
    ``machine`` is what there is for models in all, ``pool`` what engines keep of freed buffers, ``process`` the
    resident memory of the service and of all its models' processes. ``books_error`` is what some idle process held
    beyond its books, or less, where that is most.
    """

    machine: int
    budget: int
    margin: int
    limit: int
    weights: int
    kv: int
    kv_held: int
    scratch: int
    processes: int
    prefix_caches: int
    disk_cache: int
    active: int
    unaccounted: int
    queued: int
    pool: int
    process: int
    books_error: int
    host_budget: int = 0
    host: int = 0


class Counts(Struct):
    """What has happened since the start."""

    loads: int = 0
    load_failures: int = 0
    evictions: int = 0
    fetches: int = 0
    fetch_failures: int = 0


class Figures(Struct, frozen=True):
    """What resident models have to do, and have, by id; what has happened; how many processes have ended unasked."""

    work: dict[str, Work]
    books: dict[str, Books]
    counts: Counts
    losses: int
