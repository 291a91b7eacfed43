"""The hub's own client library, huggingface_hub: its endpoint, token, headers, sessions and URLs.

Transfers go through its session with range requests of our own, because its download functions keep no partial
file between calls, do not retry a reset connection and do not compare contents with the hub's checksum.
Everything here runs on the hub's thread.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import quote

import httpx2
import msgspec
from huggingface_hub import constants, get_async_session, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

import app
from app.errors import SwitchyardError, Unavailable
from app.registry.hub.failures import FOREIGN, offline, translate
from app.registry.hub.files import RepoFile, RepoInfo, is_needed, require_loadable
from app.registry.hub.names import BLOB, COMMIT
from app.registry.hub.policy import Policy
from app.registry.hub.search import Found, listed, parameters
from app.registry.hub.source import Body

OFFLINE = "The service is offline (HF_HUB_OFFLINE or its offline setting): only models on disk are known."
_CONTENT_RANGE = re.compile(r"bytes (\d+)-")


class _Lfs(msgspec.Struct, frozen=True):
    sha256: str
    size: int


class _Sibling(msgspec.Struct, frozen=True):
    rfilename: str
    size: int | None = None
    blob_id: str | None = msgspec.field(default=None, name="blobId")
    lfs: _Lfs | None = None


class _Answer(msgspec.Struct, frozen=True):
    """``GET /api/models/{repo}/revision/{revision}?blobs=true``, the part of it that is used."""

    sha: str
    siblings: tuple[_Sibling, ...] = ()


class HubClient:
    """:class:`app.registry.hub.source.Source` over the network."""

    def __init__(self, *, endpoint: str | None, offline: bool, policy: Policy) -> None:
        self._endpoint = (constants.ENDPOINT if endpoint is None else endpoint).rstrip("/")
        self._offline = offline
        self._policy = policy
        self._session = get_async_session()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.aclose()

    async def answer(self) -> None:
        """Return if anything answers at the endpoint."""
        try:
            await self._session.head(self._endpoint, timeout=self._policy.answer_timeout)
        except FOREIGN as error:
            raise translate(error, "", "", self._endpoint) from error

    async def info(self, repo: str, revision: str) -> RepoInfo:
        """Resolve a revision and list the needed files, within the policy's time limit for each attempt."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(self._policy.answer_timeout):
                    return await self._info(repo, revision)
            except FOREIGN as error:
                failure = translate(error, repo, revision, self._endpoint)
                failures += 1
                wait = self._policy.delay(failures, failure.retry_after)
                slow = isinstance(error, TimeoutError | httpx2.TimeoutException)
                last = failures >= self._policy.answer_attempts or wait > self._policy.backoff_limit
                if slow or last or not isinstance(failure, Unavailable):
                    raise self._policy.advise(failure) from error
            await asyncio.sleep(wait)

    async def search(self, words: str, limit: int, *, every: bool) -> tuple[Found, ...]:
        """One question, asked once: who searches is there to ask again."""
        if self._offline:
            raise self._policy.advise(Unavailable(OFFLINE, code="hub_away"))
        try:
            response = await self._session.get(
                f"{self._endpoint}/api/models",
                params=parameters(words, limit, every=every),
                headers=await self._headers(),
                timeout=self._policy.answer_timeout,
            )
            hf_raise_for_status(response)
            return listed(response.content, limit)
        except FOREIGN as error:
            raise translate(error, "a list of models", "", self._endpoint) from error
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._nonsense("its models") from None

    @asynccontextmanager
    async def read(self, info: RepoInfo, file: RepoFile, start: int, end: int | None = None) -> AsyncIterator[Body]:
        """Open a file at ``start`` bytes, up to ``end``; failures while it is read are translated too."""
        url = hf_hub_url(info.repo, file.name, revision=info.commit, endpoint=self._endpoint)
        headers = await self._headers() | {"Accept-Encoding": "identity"}
        if start > 0 or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        timeout = httpx2.Timeout(self._policy.stall_timeout, pool=None)
        try:
            async with self._session.stream("GET", url, headers=headers, timeout=timeout) as response:
                if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    yield Body(0, _nothing())
                    return
                await _raise_for_status(response)
                yield Body(_offset(response), response.aiter_bytes())
        except FOREIGN as error:
            raise translate(error, info.repo, info.commit, self._endpoint) from error

    async def _info(self, repo: str, revision: str) -> RepoInfo:
        if self._offline:
            raise offline(repo)
        url = f"{self._endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}"
        response = await self._session.get(
            url, params={"blobs": "true"}, headers=await self._headers(), timeout=self._policy.answer_timeout
        )
        hf_raise_for_status(response)
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._nonsense(repo) from None
        if not COMMIT.fullmatch(answer.sha):
            raise self._nonsense(repo)
        require_loadable(repo, [sibling.rfilename for sibling in answer.siblings])
        needed = [sibling for sibling in answer.siblings if is_needed(sibling.rfilename)]
        files = [await self._file(repo, answer.sha, sibling) for sibling in needed]
        return RepoInfo(repo, answer.sha, tuple(files))

    async def _file(self, repo: str, commit: str, sibling: _Sibling) -> RepoFile:
        """What the listing says of a file, or where a mirror leaves that out, what its headers say."""
        size, blob, sha256 = sibling.size, sibling.blob_id, None
        if sibling.lfs is not None:
            size, blob, sha256 = sibling.lfs.size, sibling.lfs.sha256, sibling.lfs.sha256
        if size is None or blob is None:
            url = hf_hub_url(repo, sibling.rfilename, revision=commit, endpoint=self._endpoint)
            meta = await asyncio.to_thread(get_hf_file_metadata, url, timeout=self._policy.answer_timeout)
            size, blob = meta.size, meta.etag
        if size is None or size < 0 or blob is None or not BLOB.fullmatch(blob):
            raise self._nonsense(repo)
        return RepoFile(sibling.rfilename, size, blob, sha256)

    async def _headers(self) -> dict[str, str]:
        """With the user's token, which may have to be read from a file or renewed."""
        return await asyncio.to_thread(build_hf_headers, library_name="mlx-switchyard", library_version=app.__version__)

    def _nonsense(self, repo: str) -> SwitchyardError:
        message = f"What the hub says of {repo} cannot be understood. Check HF_ENDPOINT, or try again later."
        return self._policy.advise(Unavailable(message, code="hub_away"))


async def _raise_for_status(response: httpx2.Response) -> None:
    if response.is_error:
        await response.aread()
    hf_raise_for_status(response)


def _offset(response: httpx2.Response) -> int:
    """Where the body begins: a hub that does not know ranges answers 200 with the whole file."""
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(match[1]) if response.status_code == HTTPStatus.PARTIAL_CONTENT and match else 0


async def _nothing() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk
