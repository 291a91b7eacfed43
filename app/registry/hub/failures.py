"""Failures of the hub's client, by what the caller can do about them."""

from http import HTTPStatus
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import errors as hub

from app.errors import Forbidden, ModelNotFound, ModelUnusable, SwitchyardError, Unavailable

FOREIGN = (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, hub.OfflineModeIsEnabled, TimeoutError)
"""Everything the client raises; HfHubHTTPError is an httpx2.HTTPError."""

_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - the hub's wording

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""OpenSSL's word for it; the exception's type is the same for every failure to connect."""


def translate(error: BaseException, repo: str, revision: str, endpoint: str) -> SwitchyardError:
    """The failure to raise instead; ``Unavailable`` exactly when the same request may succeed later.

    Its ``retry_after`` is the hub's word, None if the hub has said nothing.
    """
    site = _site(endpoint)
    match error:
        case hub.GatedRepoError():
            return Forbidden(
                f"{repo} is gated: accept its licence at {site}/{repo} and start the server with HF_TOKEN set to "
                "a token of that account.",
                code="gated_model",
            )
        case hub.RevisionNotFoundError():
            return ModelNotFound(f"{repo} has no revision {revision!r} on the hub.")
        case hub.OfflineModeIsEnabled():
            return offline(repo)
        case hub.HfHubHTTPError():
            return _by_status(error, repo, site)
        case httpx2.TimeoutException() | TimeoutError():
            return Unavailable(f"The hub ({site}) did not answer in time. Try again later.", code="hub_away")
        case _:
            return Unavailable(_unreachable(error, site), code="hub_away")


def offline(repo: str) -> ModelNotFound:
    """What to say of a model that is not on disk while the hub may not be asked."""
    return ModelNotFound(
        f"{repo} is not on this machine, and the server is offline (HF_HUB_OFFLINE or its offline setting). "
        "Pull it while online, or name a model from GET /v1/models."
    )


def _by_status(error: hub.HfHubHTTPError, repo: str, site: str) -> SwitchyardError:
    status = error.response.status_code
    if status == HTTPStatus.UNAUTHORIZED and error.response.headers.get("X-Error-Message") == _BAD_TOKEN:
        return Forbidden("The hub refused the server's HF_TOKEN. Renew it, or unset it for public models.")
    if isinstance(error, hub.EntryNotFoundError):
        return ModelUnusable(f"{repo} lacks a file that the hub lists for it. Try another revision.")
    if isinstance(error, hub.DisabledRepoError) or status == HTTPStatus.FORBIDDEN:
        return Forbidden(
            f"The hub does not give {repo} to this server. Look at {site}/{repo} with the account of its HF_TOKEN."
        )
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return ModelNotFound(
            f"There is no model {repo} on the hub, or it is private. Check the spelling; for a private model start "
            "the server with HF_TOKEN set."
        )
    if status in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS} or status >= 500:
        busy = status == HTTPStatus.TOO_MANY_REQUESTS
        return Unavailable(
            f"The hub ({site}) {'asks for fewer requests' if busy else f'has a problem (status {status})'}. "
            "Try again later.",
            code="hub_busy" if busy else "hub_away",
            retry_after=_retry_after(error.response),
        )
    return ModelUnusable(f"The hub refused to serve {repo} (status {status}). Check the name.")


def _unreachable(error: BaseException, site: str) -> str:
    """A certificate that is not trusted is not mended by trying again; OpenSSL's reason stands before its source."""
    said = str(error).partition(_UNTRUSTED)[2]
    if not said:
        return f"The hub ({site}) cannot be reached, or cut the connection. Try again later."
    reason = said.strip("] ").partition(" (_ssl")[0].removeprefix("certificate verify failed:").strip()
    return (
        f"The certificate of the hub ({site}) is not trusted here: {reason}. Where a company or a proxy looks into "
        "connections, set SSL_CERT_FILE to a PEM file with its certificate."
    )


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds from ``Retry-After``; a date there is not understood and counts as nothing."""
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if value.isdigit() else None


def _site(endpoint: str) -> str:
    """The endpoint for people: without a user, a password or a query that may be secret."""
    parts = urlsplit(endpoint)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}".rstrip("/")
