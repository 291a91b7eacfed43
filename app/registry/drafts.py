"""The model that drafts for another: found and fetched with it, counted with it."""

from msgspec.structs import replace

from app.engine.options import PROMPT_LOOKUP, DraftOptions
from app.errors import EngineFailed, ModelUnusable, SwitchyardError, Unavailable
from app.registry.catalog import Catalog
from app.registry.footprint import Footprint
from app.registry.shelf import Shelf
from app.registry.sources import Adapted, HubRepo, Source

_ADVICE = "Name another draft_model in its entry in models.toml, or take it out."


async def fetch(source: Source, catalog: Catalog, shelf: Shelf) -> Footprint:
    """What :meth:`Shelf.fetch` gives, with the model of the entry's ``draft_model`` and its bytes.

    Raises as that does; what is wrong with the draft is :class:`app.errors.ModelUnusable`, or
    :class:`app.errors.Unavailable` if it may pass, and names ``draft_model``.
    """
    found = await shelf.fetch(source)
    name = source.entry.draft_model
    if name is None or name == PROMPT_LOOKUP:
        return found
    what = f"draft_model = {name!r} of {source.id}"
    try:
        draft = await catalog.find(name)
        if isinstance(draft, Adapted):
            raise ModelUnusable("An adapter cannot draft.")
        its = await shelf.fetch(draft)
    except (Unavailable, EngineFailed) as error:
        raise Unavailable(f"{what}: {error.message}", retry_after=error.retry_after) from error
    except SwitchyardError as error:
        raise ModelUnusable(f"{what} cannot be had: {error.message} {_ADVICE}", param="model") from error
    if its.path.resolve() == found.path.resolve() or (isinstance(source, Adapted) and draft.id == source.base.id):
        raise ModelUnusable(f"{what} is the model itself, which spares nothing. {_ADVICE}", param="model")
    options = DraftOptions(name=name, path=its.path, quantize=draft.entry.quantize, kv_bits=draft.entry.kv_bits)
    return replace(found, weights=found.weights + its.weights, allowance=found.allowance + its.allowance, draft=options)


def repos(source: Source, catalog: Catalog) -> set[str]:
    """The hub's repos whose files a model may be using: its own and its draft's."""
    own = {source.repo} if isinstance(source, HubRepo) else set()
    draft = source.entry.draft_model
    return own if draft is None or draft == PROMPT_LOOKUP else own | {catalog.name(draft).partition("@")[0]}
