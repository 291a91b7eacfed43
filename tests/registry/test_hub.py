"""The hub's door against a local hub: what is found, what is shared, what is refused."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import snapshot_download
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store
from safetensors.numpy import save

from app.errors import Forbidden, ModelNotFound, ModelUnusable, QueueFull, SwitchyardError, Unavailable
from app.registry.hub import Hub
from app.registry.hub.files import RepoInfo
from tests.registry.conftest import IMPATIENT, REPO
from tests.support.hub import Faults, LocalHub

NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"}


async def test_a_cold_download_brings_what_is_needed_and_nothing_else(
    hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    assert await hub.local(REPO) is None
    path = await hub.download(REPO).wait()
    assert {entry.name for entry in path.iterdir()} == NEEDED
    assert all((path / name).read_bytes() == files[name] for name in NEEDED)
    assert all(server.count(name) == (name in NEEDED) for name in files)
    assert await hub.local(REPO) == await hub.local(REPO, server.commits[REPO]) == path


async def test_an_embedding_model_brings_the_folders_that_say_how_it_pools(
    hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    dense = save({"linear.weight": np.ones((2, 2), np.float32)})
    modules = b'[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}]'
    steps = {"modules.json": modules, "1_Pooling/config.json": b"{}", "2_Dense/model.safetensors": dense}
    others = {"onnx/model.onnx": b"no", "2_Dense/pytorch_model.bin": b"no", "openvino/config.json": b"{}"}
    server.add("org/vectors", files | steps | others)
    path = await hub.download("org/vectors").wait()
    assert {str(it.relative_to(path)) for it in path.rglob("*") if it.is_file()} == NEEDED | steps.keys()
    assert all((path / name).read_bytes() == content for name, content in steps.items())
    assert await hub.local("org/vectors") == path
    (path / "1_Pooling" / "config.json").unlink()
    assert await hub.local("org/vectors") is None


async def test_what_the_hub_says_of_a_repo(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    info = await hub.resolve(REPO)
    assert info.commit == server.commits[REPO]
    assert {file.name for file in info.files} == NEEDED
    assert info.total_bytes == sum(len(files[name]) for name in NEEDED)
    assert info.weight_bytes == len(files["model.safetensors"])
    assert await hub.local(REPO) is None


async def test_twenty_at_once_share_one_download(hub: Hub, server: LocalHub) -> None:
    jobs = [hub.download(REPO) for _ in range(20)]
    paths = await asyncio.gather(*(job.wait() for job in jobs))
    assert len(set(jobs)) == len(set(paths)) == 1
    assert {server.count(name) for name in NEEDED} == {1}
    assert server.count("info") == 1


async def test_a_name_in_another_case_is_the_model_that_is_here(hub: Hub, server: LocalHub, tmp_path: Path) -> None:
    """As it is for the hub, and on disks that fold case: no second download, and nothing removed by mistake."""
    server.add("Org/Model", {})
    path = await hub.download(REPO).wait()
    assert await hub.spelled("ORG/model") == REPO
    assert await hub.local("ORG/Model") == path
    assert await hub.download("Org/model", refresh=False).wait() == path
    assert [it.repo for it in await hub.installed()] == [REPO]
    assert await hub.spelled("org/models") == "org/models"
    assert await hub.delete("oRG/mODEL") > 600_000
    assert await hub.installed() == ()


async def test_two_at_once_who_write_a_name_otherwise_share_one_download(hub: Hub, server: LocalHub) -> None:
    jobs = [hub.download(name) for name in (REPO, "ORG/Model", "org/MODEL")]
    assert len(set(jobs)) == 1
    assert await hub.spelled("Org/Model") == REPO
    await jobs[0].wait()
    assert server.count("model.safetensors") == 1


async def test_of_two_directories_that_differ_in_case_each_is_its_own(hub: Hub, tmp_path: Path) -> None:
    for repo in ("org--model", "ORG--model"):
        (tmp_path / "cache" / f"models--{repo}" / "blobs").mkdir(parents=True)
    assert await hub.spelled("ORG/model") == "ORG/model"
    assert await hub.spelled("org/model") == "org/model"


async def test_progress_is_watched_without_polling(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    server.faults["model.safetensors"] = Faults(bytes_per_second=1_500_000)
    job = hub.download(REPO)
    moments = [moment async for moment in job.watch()]
    assert moments[0].state == "resolving"
    assert moments[-1].state == "done"
    assert moments[-1].done == moments[-1].total == sum(len(files[name]) for name in NEEDED)
    amounts = [moment.done for moment in moments]
    assert amounts == sorted(amounts)
    assert len({amount for amount in amounts if 0 < amount < moments[-1].total}) >= 2
    weights = next(file for file in moments[-1].files if file.name == "model.safetensors")
    assert weights.done == weights.size == len(files["model.safetensors"])


async def test_a_download_survives_the_caller_that_started_it(hub: Hub, server: LocalHub) -> None:
    server.faults["model.safetensors"] = Faults(bytes_per_second=2_000_000)
    job = hub.download(REPO)
    caller = asyncio.create_task(job.wait())
    await asyncio.sleep(0.1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert hub.downloads() == (job,)
    assert (await job.wait()).is_dir()
    assert hub.downloads() == ()


async def test_what_is_on_disk_needs_no_hub(hub: Hub, server: LocalHub, tmp_path: Path) -> None:
    path = await hub.download(REPO).wait()
    server.close()
    offline = Hub(cache_dir=tmp_path / "cache", endpoint=server.url, offline=True)
    assert await offline.download(REPO).wait() == path
    assert await offline.download(REPO, server.commits[REPO]).wait() == path
    with pytest.raises(ModelNotFound, match="offline"):
        await offline.download("org/other").wait()
    await offline.close()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await hub.resolve(REPO)


async def test_a_hub_that_never_answers_costs_its_caller_a_moment_and_others_nothing(
    hub: Hub, server: LocalHub
) -> None:
    path = await hub.download(REPO).wait()
    server.faults["info"] = Faults(hang=True)
    lost = [hub.download(f"org/unknown-{number}") for number in range(6)]
    begun = time.perf_counter()
    assert await hub.download(REPO).wait() == path
    assert time.perf_counter() - begun < 0.2
    for job in lost:
        with pytest.raises(Unavailable, match="did not answer in time") as failure:
            await job.wait()
        assert failure.value.retry_after is not None
    assert time.perf_counter() - begun < 2 * IMPATIENT.answer_timeout


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Faults(status=403, error_code="GatedRepo"), Forbidden, "accept its licence at .*/org/model .*HF_TOKEN"),
        (Faults(status=401, error_message="Invalid credentials in Authorization header"), Forbidden, "HF_TOKEN"),
        (Faults(status=401), ModelNotFound, "private"),
        (Faults(status=404, error_code="RepoNotFound"), ModelNotFound, "no model org/model"),
        (Faults(status=500), Unavailable, "status 500"),
        (Faults(status=429, retry_after=90), Unavailable, "fewer requests"),
        (Faults(body=b"<html>Welcome to the hotel"), Unavailable, "cannot be understood"),
        (Faults(body=b'{"sha": "../../etc", "siblings": []}'), Unavailable, "cannot be understood"),
    ],
)
async def test_every_refusal_says_what_to_do(
    hub: Hub, server: LocalHub, fault: Faults, error: type[SwitchyardError], words: str
) -> None:
    server.faults["info"] = fault
    with pytest.raises(error, match=words) as first:
        await hub.download(REPO).wait()
    with pytest.raises(error) as second:
        await hub.resolve(REPO)
    assert first.value is not second.value
    waits: dict[type[SwitchyardError], float] = {Unavailable: fault.retry_after or IMPATIENT.away}
    assert first.value.retry_after == waits.get(error)


async def test_a_revision_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match="no revision 'v9'"):
        await hub.resolve(REPO, "v9")


async def test_a_hub_with_hiccups_is_asked_again(hub: Hub, server: LocalHub) -> None:
    server.faults["info"] = Faults(status=503, times=1)
    server.faults["model.safetensors"] = Faults(status=429, retry_after=1, times=1)
    begun = time.perf_counter()
    await hub.download(REPO).wait()
    assert time.perf_counter() - begun > 1
    assert server.count("info") == server.count("model.safetensors") == 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": b"{}", "model.Q4_0.gguf": b"", "pytorch_model.bin": b""}, "only bin, gguf"),
        ({"README.md": b""}, "no weights at all"),
        ({"config.json": b"{}", "sub/model.safetensors": b"x", "..\\model.safetensors": b"x"}, "under other names"),
        ({"model.safetensors": b"x"}, "no config.json"),
    ],
)
async def test_repos_that_mlx_cannot_load_are_refused_before_anything_is_fetched(
    hub: Hub, server: LocalHub, files: dict[str, bytes], words: str
) -> None:
    server.add("org/odd", files)
    with pytest.raises(ModelUnusable, match=words):
        await hub.download("org/odd").wait()
    assert {name for _, name in server.requests} == {"info"}


async def test_names_from_the_hub_stay_in_the_cache(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    evil = {"../../escape.json", "..\\escape.json", "/escape.json", "a/../../escape.jinja", "c:escape.json", "x\0.json"}
    server.add(REPO, files | dict.fromkeys(evil, b"{}"))
    path = await hub.download(REPO).wait()
    assert {entry.name for entry in path.iterdir()} == NEEDED
    assert not list(tmp_path.rglob("*escape*"))


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b/c", "http://x/y", "org/..", "org/a--b", "", "org/x\n", "."]
)
async def test_names_that_no_repo_can_have_never_reach_the_hub(hub: Hub, server: LocalHub, name: str) -> None:
    with pytest.raises(ModelNotFound):
        await hub.local(name)
    with pytest.raises(ModelNotFound):
        hub.download(name)
    with pytest.raises(ModelNotFound):
        hub.download(REPO, f"../{name}")
    assert not server.requests


async def test_nonsense_in_the_configuration_is_found_before_the_weights_are_fetched(
    hub: Hub, server: LocalHub, files: dict[str, bytes]
) -> None:
    server.add(REPO, files | {"config.json": b"404: not found"})
    with pytest.raises(ModelUnusable, match=r"config\.json of org/model is not a JSON object"):
        await hub.download(REPO).wait()
    assert server.count("model.safetensors") == 0
    assert await hub.local(REPO) is None


@pytest.mark.parametrize("content", [b"[]", b'[{"name": "pairs", "lines": 7}]', b"404: not found", b"", b'"text"'])
@pytest.mark.parametrize("name", ["data_config.json", "train_config.json", "1_Pooling/config.json", "modules.json"])
async def test_files_that_no_load_needs_may_hold_what_they_like(
    hub: Hub, server: LocalHub, files: dict[str, bytes], name: str, content: bytes
) -> None:
    server.add(REPO, files | {name: content})
    assert (await hub.download(REPO).wait() / "model.safetensors").is_file()


async def test_preflight_can_refuse(server: LocalHub, tmp_path: Path) -> None:
    def refuse(info: RepoInfo) -> None:
        raise ModelUnusable(f"{info.weight_bytes} bytes are too many")

    hub = Hub(cache_dir=tmp_path, endpoint=server.url, policy=IMPATIENT, preflight=refuse)
    with pytest.raises(ModelUnusable, match="too many"):
        await hub.download(REPO).wait()
    await hub.close()
    assert server.count("config.json") == 0


async def test_too_many_downloads_are_refused(hub: Hub, server: LocalHub) -> None:
    server.faults["info"] = Faults(hang=True)
    jobs = [hub.download(f"org/m{number}") for number in range(IMPATIENT.max_downloads)]
    with pytest.raises(QueueFull):
        hub.download("org/one-more")
    for job in jobs:
        job.cancel()
    with pytest.raises(Unavailable, match="cancelled"):
        await jobs[0].wait()


async def test_models_of_other_tools_are_found_and_ours_by_them(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    await asyncio.to_thread(snapshot_download, REPO, cache_dir=cache, endpoint=server.url)
    theirs = await hub.local(REPO)
    assert theirs is not None
    assert server.count("model.safetensors") == 1

    server.add("org/second", files)
    ours = await hub.download("org/second").wait()
    found = snapshot_download("org/second", cache_dir=cache, local_files_only=True)
    assert found == str(ours)
    assert [(model.repo, model.revisions) for model in await hub.installed()] == [
        (REPO, ("main",)),
        ("org/second", ("main",)),
    ]


async def test_a_refresh_follows_the_branch(hub: Hub, server: LocalHub, files: dict[str, bytes]) -> None:
    old = await hub.download(REPO).wait()
    commit = server.add(REPO, files | {"config.json": b'{"model_type": "qwen3"}'})
    assert await hub.download(REPO).wait() == old
    new = await hub.download(REPO, refresh=True).wait()
    assert new.name == commit
    assert await hub.local(REPO) == new
    assert old.is_dir()
    assert server.count("model.safetensors") == 1


async def test_a_mirror_that_lists_names_only(hub: Hub, server: LocalHub) -> None:
    server.plain_listing = True
    path = await hub.download(REPO).wait()
    assert {entry.name for entry in path.iterdir()} == NEEDED


async def test_delete_removes_everything_of_a_repo(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    server.add("org/other", files)
    await hub.download("org/other").wait()
    await hub.download(REPO).wait()
    assert await hub.delete(REPO) == sum(len(files[name]) for name in NEEDED)
    assert await hub.local(REPO) is None
    assert await hub.local("org/other") is not None
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["models--org--other"]
    with pytest.raises(ModelNotFound):
        await hub.delete(REPO)


async def test_delete_lets_go_of_contents_that_are_shared_between_repos(
    hub: Hub, server: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    server.add("org/other", files)
    for repo in (REPO, "org/other"):
        path = await hub.download(repo).wait()
        blob = (path / "model.safetensors").resolve()
        assert publish_blob_to_shared_store(
            blob_path=str(blob),
            xet_hash="a" * 64,
            cache_dir=cache,
            expected_size=blob.stat().st_size,
            replace_existing=False,
        )
    stored = cache / "blobs" / "aa" / ("a" * 64)
    await hub.delete(REPO)
    assert await hub.local(REPO) is None
    assert await hub.local("org/other") is not None
    await hub.delete("org/other")
    assert not stored.exists()


def test_the_environment_means_what_huggingface_hub_says(files: dict[str, bytes], tmp_path: Path) -> None:
    program = """
import asyncio, sys
from app.registry.hub import Hub
assert "httpx2" not in sys.modules
async def main():
    hub = Hub()
    for repo in sys.argv[1:]:
        try:
            print(await hub.download(repo).wait())
        except Exception as error:
            print(type(error).__name__, error)
    await hub.close()
asyncio.run(main())
"""

    def run(*repos: str, **env: Any) -> list[str]:
        command = [sys.executable, "-c", program, *repos]
        done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.splitlines()

    with LocalHub() as server:
        server.add("org/model", files)
        server.tokens = {"hf_right"}
        env = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
        [refused] = run(REPO, **env, HF_TOKEN="hf_wrong")
        assert refused.startswith("Forbidden")
        assert "hf_wrong" not in refused
        [path] = run(REPO, **env, HF_TOKEN="hf_right")
        assert path.startswith(str(tmp_path / "home" / "hub" / "models--org--model"))
        found, missing = run(REPO, "org/other", **env, HF_HUB_OFFLINE="1")
        assert found == path
        assert missing.startswith("ModelNotFound")


def test_every_failure_of_the_clients_library_is_translated() -> None:
    import httpx2  # noqa: PLC0415 - belongs to this test
    from huggingface_hub import errors  # noqa: PLC0415

    from app.registry.hub.failures import FOREIGN  # noqa: PLC0415

    raised = [getattr(httpx2, name) for name in dir(httpx2)] + [errors.HfHubHTTPError, errors.OfflineModeIsEnabled]
    foreign = {kind for kind in raised if isinstance(kind, type) and issubclass(kind, Exception)}
    programming = {httpx2.CookieConflict}
    assert {kind.__name__ for kind in foreign - programming if not issubclass(kind, FOREIGN)} == set()
    assert not issubclass(SwitchyardError, FOREIGN)
