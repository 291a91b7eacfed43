"""What is said once the service accepts connections: its address and two ways to use it."""

from app.registry.patterns import is_pattern
from app.settings import Settings


def base_url(host: str, port: int, *, secure: bool = False) -> str:
    """The URL to reach a service that listens on ``host``: loopback when it listens everywhere."""
    scheme = "https" if secure else "http"
    reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def welcome(version: str, url: str, settings: Settings) -> str:
    """The lines to print; with keys configured they hold a placeholder, never a key."""
    entry = settings.models.get(settings.default_model)
    aliases = () if entry is None else (alias for alias in entry.aliases if not is_pattern(alias))
    model = next(iter(aliases), settings.default_model)
    keyed = bool(settings.api_keys) or settings.key_file is not None
    key = "YOUR_KEY" if keyed else "none"
    header = " -H 'Authorization: Bearer YOUR_KEY'" if keyed else ""
    return f"""Switchyard {version} serves {url}

Open it in a browser, or ask it from a program:

  curl {url}/v1/completions{header} -H 'Content-Type: application/json' \\
    -d '{{"model": "{model}", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  messages = [{{"role": "user", "content": "What is the capital of France?"}}]
  answer = client.chat.completions.create(model="{model}", messages=messages, temperature=0)
  print(answer.choices[0].message.content)

Ctrl-C stops it.
"""
