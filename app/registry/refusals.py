"""What those are told who cannot have what they asked for: why, with numbers, and what to do."""

from app.errors import Conflict, ModelUnusable, Unavailable
from app.registry.budget import Budget, size
from app.registry.residency import Claim, Refuse
from app.registry.slot import Slot


def too_large(claim: Claim, refusal: Refuse, budget: Budget) -> ModelUnusable:
    """It can never fit."""
    if refusal.host:
        return ModelUnusable(
            f"The process of {claim.model} needs {size(refusal.needed)} of this machine's own memory, beside the "
            f"GPU's, and can have {size(max(0, refusal.attainable))}. Give the machine more, or run it elsewhere.",
            code="memory_budget_exceeded",
        )
    if claim.holds is None:
        what, advice = f"{claim.model} needs", "Name a smaller model"
    elif claim.grammar:
        what = f"To hold answers to a grammar {claim.model} needs"
        advice = "Ask for neither a schema nor tools of it"
    else:
        what, advice = f"The KV cache of this request on {claim.model} needs", "Send a shorter request"
    return ModelUnusable(
        f"{what} {size(refusal.needed)} of memory and can have {size(max(0, refusal.attainable))} of the budget of "
        f"{size(budget.total)}. {advice}, or raise memory_budget.",
        code="memory_budget_exceeded",
    )


def no_memory_now(model: str) -> Unavailable:
    """Requests wait for each other's memory, and this one gives way."""
    return Unavailable(
        f"Other requests on {model} and beside it hold the memory that this one needs. Try again in a moment.",
        retry_after=1.0,
    )


def in_use(slot: Slot) -> Conflict:
    """Something must be idle first."""
    return Conflict(f"{slot.model} is {slot.phase}, in use by {len(slot.leases)} requests. Try again once it is idle.")


def not_resident(model: str) -> Conflict:
    """Something must be in memory first."""
    return Conflict(f"{model} is not in memory. Load it first.")


def stopping() -> Unavailable:
    """The service ends."""
    return Unavailable("The server is stopping. Send the request again once it is back.", retry_after=5.0)


def waits_for(slot: Slot) -> str:
    """Why a request is still without its model."""
    match slot.phase:
        case "fetching":
            return f"{slot.model} is still being downloaded."
        case "loading":
            return f"{slot.model} is still being loaded."
        case _:
            return f"{slot.model} waits for its turn: other models are using the memory."


def waits_for_memory(model: str) -> str:
    """Why a request is still without its KV cache."""
    return f"The memory for this request on {model} is in use by others."
