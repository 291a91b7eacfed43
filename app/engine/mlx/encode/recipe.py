"""How a checkpoint says that its vectors are made: sentence-transformers' files, and nothing else.

Source of the formats: sentence-transformers' saved models. modules.json lists the steps in their order, each with a
folder (``1_Pooling``) whose config.json describes it; sentence_bert_config.json bounds a text's length,
config_sentence_transformers.json has the prompts. The classes have moved between packages; their own names are as old
as the format.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from app.engine.kind import Module, Pooling, modules_of

ORDER: tuple[Pooling, ...] = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
"""In which several of them are put together, whatever a file's order is."""
Activation = Literal["Identity", "Tanh", "ReLU", "GELU", "Sigmoid"]
_FOLDER = re.compile(r"[\w.-]+")
T = TypeVar("T")


class RecipeUnknown(ValueError):
    """The checkpoint does not say how its vectors are made, or says what is not known here."""


class DenseStep(Struct, frozen=True):
    """A matrix behind the pooling, in the folder ``path``."""

    path: str
    bias: bool
    activation: Activation


class Recipe(Struct, frozen=True, kw_only=True):
    """How a text becomes a vector.

    ``pooling`` modes are put one behind the other. ``include_prompt`` says whether a prompt's tokens are pooled as
    well. ``max_tokens`` is what the checkpoint bounds a text to, with its special tokens.
    """

    pooling: tuple[Pooling, ...]
    include_prompt: bool = True
    dense: tuple[DenseStep, ...] = ()
    normalize: bool = False
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = {}
    default_prompt: str | None = None


class _Pooling(Struct, frozen=True):
    pooling_mode: Pooling | tuple[Pooling, ...] | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False
    include_prompt: bool = True

    def modes(self) -> tuple[Pooling, ...]:
        """What is true of them, or named."""
        if isinstance(self.pooling_mode, str):
            return (self.pooling_mode,)
        if self.pooling_mode is not None:
            return tuple(mode for mode in ORDER if mode in self.pooling_mode)
        flags = (
            self.pooling_mode_cls_token,
            self.pooling_mode_max_tokens,
            self.pooling_mode_mean_tokens,
            self.pooling_mode_mean_sqrt_len_tokens,
            self.pooling_mode_weightedmean_tokens,
            self.pooling_mode_lasttoken,
        )
        return tuple(mode for mode, flag in zip(ORDER, flags, strict=True) if flag)


class _Dense(Struct, frozen=True):
    activation_function: str = "torch.nn.modules.activation.Tanh"
    bias: bool = True


class _Text(Struct, frozen=True):
    max_seq_length: int | None = None
    do_lower_case: bool = False


class _Prompts(Struct, frozen=True):
    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None


def read_recipe(directory: Path, pooling: Pooling | None = None) -> Recipe:
    """The recipe of a model directory; ``pooling`` is what the settings say, for a checkpoint that says nothing.

    Raises :class:`RecipeUnknown` for a checkpoint that cannot be followed to the letter.
    """
    modules = modules_of(directory)
    text, prompts = text_of(directory), _read(directory / "config_sentence_transformers.json", _Prompts)
    default = prompts.default_prompt_name
    if default is not None and default not in prompts.prompts:
        raise RecipeUnknown(f"its default prompt is {default!r}, which is none of its prompts")
    common: dict[str, Any] = {
        "max_tokens": text.max_seq_length,
        "lowercase": text.do_lower_case,
        "prompts": prompts.prompts,
        "default_prompt": default,
    }
    if not modules:
        if pooling is None:
            raise RecipeUnknown(
                "it has no modules.json that says how its vectors are made, and a guess would be wrong without anybody "
                "noticing; set pooling in its entry of models.toml"
            )
        return Recipe(pooling=(pooling,), normalize=True, **common)
    first, *others = modules
    if first.name != "Transformer" or first.path:
        raise RecipeUnknown(f"its modules.json begins with {first.name} in the folder {first.path!r}")
    return _followed(directory, others, pooling, common)


def _followed(directory: Path, modules: list[Module], pooling: Pooling | None, common: dict[str, Any]) -> Recipe:
    """The steps behind the transformer; the settings' pooling takes the place of the checkpoint's."""
    modes: tuple[Pooling, ...] = ()
    include_prompt, normalize = True, False
    dense: list[DenseStep] = []
    for module in modules:
        folder = _folder(directory, module)
        if module.name == "Pooling" and not modes:
            read = _read(folder / "config.json", _Pooling)
            modes, include_prompt = read.modes(), read.include_prompt
            if not modes:
                raise RecipeUnknown("its pooling names no mode that is known here")
        elif module.name == "Dense" and modes and not normalize:
            dense.append(_dense(module, _read(folder / "config.json", _Dense)))
        elif module.name == "Normalize" and modes:
            normalize = True
        else:
            raise RecipeUnknown(f"the step {module.name} of its modules.json, where it stands, is not known here")
    if pooling is not None:
        modes = (pooling,)
    if not modes:
        raise RecipeUnknown("its modules.json has no pooling; set pooling in its entry of models.toml")
    return Recipe(pooling=modes, include_prompt=include_prompt, dense=tuple(dense), normalize=normalize, **common)


def text_of(directory: Path) -> _Text:
    """What bounds a text, as sentence_bert_config.json says."""
    return _read(directory / "sentence_bert_config.json", _Text)


def _dense(module: Module, read: _Dense) -> DenseStep:
    name = read.activation_function.rpartition(".")[2]
    try:
        return DenseStep(module.path, read.bias, msgspec.convert(name, Activation))
    except msgspec.ValidationError:
        raise RecipeUnknown(f"the activation {name} of its step {module.path} is not known here") from None


def _folder(directory: Path, module: Module) -> Path:
    if not _FOLDER.fullmatch(module.path) or module.path.strip(".") == "":
        raise RecipeUnknown(f"the step {module.name} of its modules.json names no folder of its own")
    return directory / module.path


def _read(file: Path, kind: type[T]) -> T:
    """A file's fields, those of ``kind``; its defaults where there is no such file."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return kind()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise RecipeUnknown(f"its {file.name} is not understood: {failure}") from None
