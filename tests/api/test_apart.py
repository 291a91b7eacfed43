"""Keys share prefixes unless a setting says otherwise; then every dialect tells the engine whose a prompt is."""

from typing import Any

import pytest

from app.settings import Settings
from tests.api.conftest import Serve
from tests.support.asgi import request
from tests.support.scripted import ScriptedLoader

KEYS = ("sk-one", "sk-two")
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "tiny", "prompt": "Hi", "max_tokens": 3},
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT,
    "/v1/responses": {"model": "tiny", "input": "Hi", "max_output_tokens": 16},
}


async def owners(serve: Serve, loader: ScriptedLoader, settings: Settings, url: str) -> list[bytes]:
    """Whose the engine takes the prompts of each key to be, each sent twice."""
    app = serve(settings=settings)
    for key in (*KEYS, *KEYS):
        headers = {"Authorization": f"Bearer {key}"} if settings.api_keys else {}
        answer = await request(app, "POST", url, DIALECTS[url], headers)
        assert answer.status == 200, answer.body
    return [it.owner for it in loader.engines["tiny"].submitted]


@pytest.mark.parametrize("url", DIALECTS)
async def test_each_key_has_prefixes_of_its_own_where_that_is_set(
    serve: Serve, loader: ScriptedLoader, url: str
) -> None:
    one, two, *again = await owners(serve, loader, Settings(api_keys=KEYS, prefixes_by_key=True), url)
    assert again == [one, two]
    assert one != two
    assert b"" not in (one, two)
    assert not any(key.encode() in owner for key in KEYS for owner in (one, two))


@pytest.mark.parametrize("url", DIALECTS)
@pytest.mark.parametrize("settings", [Settings(api_keys=KEYS), Settings(prefixes_by_key=True)])
async def test_otherwise_and_without_keys_everybody_shares(
    serve: Serve, loader: ScriptedLoader, url: str, settings: Settings
) -> None:
    assert set(await owners(serve, loader, settings, url)) == {b""}
