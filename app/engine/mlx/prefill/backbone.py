"""What a model says behind a prompt's last token, in the pass that computes the prompt.

Models compute their output layer at every position that they are given. It looks at each by itself, so for one call
something stands in for the part before it, and hands on the last position alone. That part, mlx-lm's ``model.model``
mostly, is known by the layers that it holds; whether this is right for a model is tried at load.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

Forward = Callable[..., mx.array]


class Backbone:
    """The part of ``model`` that computes its layers: ``name`` in ``owner``. MLX thread only; nothing is evaluated."""

    def __init__(self, model: Any, owner: Module, name: str) -> None:
        self._model = model
        self._owner = owner
        self._name = name
        self._inner: Any = owner[name]

    @classmethod
    def of(cls, model: Any) -> Backbone | None:
        """That of a model, if something in it holds its layers."""
        first, waiting = next(iter(getattr(model, "layers", ())), None), deque[Any]([model])
        while waiting:
            owner = waiting.popleft()
            for name, child in (owner if isinstance(owner, Module) else vars(owner)).items():
                if not isinstance(child, Module):
                    continue
                if isinstance(owner, Module) and any(_begins(held, first) for held in child.values()):
                    return cls(model, owner, name)
                waiting.append(child)
        return None

    def last_logits(self, tokens: mx.array, layers: Sequence[Any]) -> mx.array:
        """Float32, ``[rows, vocabulary]``, behind ``tokens``, ``[rows, positions]``; ``layers`` are the caches."""
        inner = self._inner
        with self._instead(lambda *args, **kwargs: inner(*args, **kwargs)[:, -1:]):
            return self._model(tokens, cache=layers)[:, -1].astype(mx.float32)

    def forward(self, tokens: mx.array, layers: Sequence[Any]) -> tuple[mx.array, Any]:
        """The logits of all positions, and what the output layer was given for them; None if the part is not called."""
        heard = [None]
        inner = self._inner

        def hear(*args: Any, **kwargs: Any) -> Any:
            heard[0] = inner(*args, **kwargs)
            return heard[0]

        with self._instead(hear):
            return self._model(tokens, cache=layers), heard[0]

    def output(self, given: Any, tokens: mx.array, layers: Sequence[Any]) -> mx.array:
        """The logits that the output layer makes of what it is ``given``, whatever the tokens."""
        with self._instead(lambda *_, **__: given):
            logits: mx.array = self._model(tokens, cache=layers)
        return logits

    @contextmanager
    def _instead(self, forward: Forward) -> Iterator[None]:
        self._owner[self._name] = _StandIn(self._inner, forward)
        try:
            yield
        finally:
            self._owner[self._name] = self._inner


class _StandIn:
    """Is called in place of ``inner``; whatever else is wanted of it is had of ``inner``."""

    def __init__(self, inner: Any, forward: Forward) -> None:
        self._inner = inner
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _begins(held: Any, first: Any) -> bool:
    return isinstance(held, list) and bool(held) and held[0] is first
