"""The clients that ``switchyard launch`` starts: what each is told of the service, by flags and variables alone.

None of their files is written or read here. Where a client must be told how much its model can hold, and this machine
does not know, ``CONTEXT`` is said.
"""

import json
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

CONTEXT = 32768


class Service(Struct, frozen=True):
    """What a client is to talk with. ``context`` is the tokens that the model holds, None if that is not known."""

    url: str
    key: str
    model: str
    context: int | None = None


class Launch(Struct, frozen=True):
    """A program with its flags, the variables it is given and those it must not see."""

    command: tuple[str, ...]
    variables: dict[str, str]
    without: tuple[str, ...] = ()


class Agent(Struct, frozen=True):
    """A client: how it is told of a service, and how it is got."""

    program: str
    install: str
    launch: Callable[[Service], Launch]


def agents() -> dict[str, Agent]:
    """All of them by name."""
    return {
        "aider": Agent("aider", "python -m pip install aider-install && aider-install", _aider),
        "claude": Agent("claude", "npm install -g @anthropic-ai/claude-code", _claude),
        "codex": Agent("codex", "npm install -g @openai/codex", _codex),
        "opencode": Agent("opencode", "npm install -g opencode-ai", _opencode),
        "pi": Agent("pi", "npm install -g @earendil-works/pi-coding-agent", _pi),
        "qwen": Agent("qwen", "npm install -g @qwen-code/qwen-code", _qwen),
    }


def _aider(service: Service) -> Launch:
    variables = {"OPENAI_API_BASE": f"{service.url}/v1", "OPENAI_API_KEY": service.key}
    return Launch(("aider", "--model", f"openai/{service.model}", "--no-show-model-warnings"), variables)


def _claude(service: Service) -> Launch:
    """Every size of model is the same one: a second would take the first one's place in memory."""
    names = ("MODEL", "DEFAULT_OPUS_MODEL", "DEFAULT_SONNET_MODEL", "DEFAULT_HAIKU_MODEL")
    variables = {
        "ANTHROPIC_BASE_URL": service.url,
        "ANTHROPIC_AUTH_TOKEN": service.key,
        **{f"ANTHROPIC_{name}": service.model for name in names},
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    if service.context is not None:
        variables["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(service.context)
    return Launch(("claude",), variables, without=("ANTHROPIC_API_KEY",))


def _codex(service: Service) -> Launch:
    provider = f'{{name="Switchyard",base_url="{service.url}/v1",wire_api="responses",env_key="SWITCHYARD_KEY"}}'
    flags = ["-c", 'model_provider="switchyard"', "-c", f"model_providers.switchyard={provider}"]
    if service.context is not None:
        flags += ["-c", f"model_context_window={service.context}"]
    return Launch(("codex", *flags, "-m", service.model), {"SWITCHYARD_KEY": service.key})


def _opencode(service: Service) -> Launch:
    model: dict[str, object] = {"name": service.model}
    if service.context is not None:
        model["limit"] = {"context": service.context, "output": service.context // 4}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Switchyard",
        "options": {"baseURL": f"{service.url}/v1", "apiKey": "{env:SWITCHYARD_KEY}"},
        "models": {service.model: model},
    }
    name = f"switchyard/{service.model}"
    config = {"provider": {"switchyard": provider}, "model": name, "small_model": name}
    variables = {"SWITCHYARD_KEY": service.key, "OPENCODE_CONFIG_CONTENT": json.dumps(config)}
    return Launch(("opencode",), variables)


def _pi(service: Service) -> Launch:
    provider = str(Path(__file__).with_name("pi_provider.mjs"))
    variables = {
        "SWITCHYARD_URL": service.url,
        "SWITCHYARD_KEY": service.key,
        "PI_SWITCHYARD_MODEL": service.model,
        "PI_SWITCHYARD_CONTEXT": str(CONTEXT if service.context is None else service.context),
    }
    return Launch(("pi", "-e", provider, "--provider", "switchyard", "--model", service.model), variables)


def _qwen(service: Service) -> Launch:
    variables = {
        "OPENAI_BASE_URL": f"{service.url}/v1",
        "OPENAI_API_KEY": service.key,
        "OPENAI_MODEL": service.model,
    }
    return Launch(("qwen", "--auth-type", "openai", "--model", service.model), variables)
