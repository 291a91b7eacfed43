"""From a model directory to a model that makes vectors or scores."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from msgspec import Struct

from app.engine.kind import ENCODERS, Kind, modules_of
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.encode.bert import Bert, BertArgs
from app.engine.mlx.encode.decoders import BidirectionalGemma, Headless, headless_classes
from app.engine.mlx.encode.encoders import Computer, Piece, Scores, Vectors, YesOrNo
from app.engine.mlx.encode.engine import MLXEncoder
from app.engine.mlx.encode.modernbert import ModernBert, ModernBertArgs
from app.engine.mlx.encode.pooling import Dense
from app.engine.mlx.encode.recipe import DenseStep, Recipe, RecipeUnknown, read_recipe, text_of
from app.engine.mlx.encode.rerank import Asking, Judging, Pairs
from app.engine.mlx.encode.tokens import EncoderTokenizer
from app.engine.mlx.load.weights import evaluated, warm_pages
from app.engine.mlx.memory import half_bytes
from app.engine.options import LoadOptions

GROUP = 64
"""Weights that share a scale and a bias when a model is quantised on load."""
UNBOUNDED = 1_000_000
"""Tokenizers say a number from here on where they mean that nothing bounds a text."""


class _Bounds(Struct, frozen=True):
    model_max_length: float | None = None


class _Answers(Struct, frozen=True):
    true_token_id: int
    false_token_id: int | None = None


class Built(Struct, frozen=True):
    """A model in memory: what computes, its weights, and how many tokens it has rows for."""

    computer: Computer
    arrays: list[Any]
    rows: int


async def load_encoder(
    thread: MLXThread,
    path: Path,
    config: dict[str, Any],
    options: LoadOptions,
    *,
    name: str,
    kind: Kind,
    fingerprint: str,
) -> MLXEncoder:
    """Read the tokenizer on another thread, the weights on MLX's, in steps.

    Raises :class:`app.engine.mlx.encode.recipe.RecipeUnknown`, or what reading such files raises.
    """
    recipe = await asyncio.to_thread(read_recipe, path, options.pooling) if kind == "embedding" else None
    lowercase = text_of(path).do_lower_case if recipe is None else recipe.lowercase
    longest = _longest(path, config)
    tokenizer = await asyncio.to_thread(EncoderTokenizer, path, longest, lowercase=lowercase)
    asking: Asking | None = None
    if recipe is None:
        asking = Pairs(tokenizer) if config.get("model_type") in ENCODERS else Judging(tokenizer)
    await asyncio.to_thread(warm_pages, path)
    built = await thread.run_in_steps(_build(path, config, options, recipe, tokenizer))
    return MLXEncoder(
        thread,
        built.computer,
        tokenizer,
        name=name,
        kind=kind,
        width=built.rows,
        nbytes=sum(array.nbytes for array in built.arrays),
        fingerprint=fingerprint,
        recipe=recipe,
        asking=asking,
    )


def _longest(path: Path, config: Mapping[str, Any]) -> int:
    """Tokens of the longest text: what the checkpoint bounds it to, or else what it has positions for."""
    positions = int(config.get("max_position_embeddings") or 512)
    if config.get("model_type") in ENCODERS - {"bert", "modernbert"}:
        positions -= int(config.get("pad_token_id") or 0) + 1
    bounds = [positions, text_of(path).max_seq_length]
    file = path / "tokenizer_config.json"
    if file.is_file():
        said = msgspec.json.decode(file.read_bytes(), type=_Bounds).model_max_length
        bounds.append(None if said is None or said >= UNBOUNDED else int(said))
    return min(bound for bound in bounds if bound is not None and bound > 0)


def _build(
    path: Path, config: dict[str, Any], options: LoadOptions, recipe: Recipe | None, tokenizer: EncoderTokenizer
) -> Generator[None, None, Built]:
    """Build the model lazily, evaluate its weights a few at a time, then use it once. MLX thread."""
    model, computer, rows, dense = _model(path, config, recipe, tokenizer)
    yield
    if options.quantize is not None and "quantization" not in config:
        nn.quantize(model, GROUP, options.quantize, class_predicate=_quantisable)
    if half_bytes() > 2:
        for module in (model, *dense):
            module.set_dtype(mx.float32)
    arrays = [array for module in (model, *dense) for _, array in tree_flatten(module.parameters())]
    yield from evaluated(arrays)
    mx.eval(computer.compute([Piece((0, 0, 0)), Piece((0,))]))
    yield
    return Built(computer, arrays, rows)


def _quantisable(_name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding) and not module.weight.shape[-1] % GROUP


def _model(
    path: Path, config: dict[str, Any], recipe: Recipe | None, tokenizer: EncoderTokenizer
) -> tuple[Any, Computer, int, list[Dense]]:
    if config.get("model_type") in ENCODERS:
        return _encoder(path, config, recipe)
    if recipe is None:
        return _judge(path, config, tokenizer)
    model, _ = load_model(path, lazy=True, get_model_classes=headless_classes)
    bidirectional = bool(config.get("use_bidirectional_attention"))
    if bidirectional and config.get("model_type") != "gemma3_text":
        raise RecipeUnknown(f"attention that goes both ways is not known here for {config.get('model_type')}")
    headless = BidirectionalGemma(model) if bidirectional else Headless(model)
    dense = [_dense(path, step) for step in recipe.dense]
    return model, Vectors(headless, recipe, dense), int(model.model.embed_tokens.weight.shape[0]), dense


def _encoder(path: Path, config: dict[str, Any], recipe: Recipe | None) -> tuple[Any, Computer, int, list[Dense]]:
    labels = config.get("id2label")
    if recipe is None and isinstance(labels, dict) and len(labels) != 1:
        raise ValueError(f"it tells {len(labels)} labels apart; a reranker has one score")
    model, _ = load_model(path, lazy=True, get_model_classes=_encoder_classes)
    rows = int(model.words.shape[0])
    if recipe is None:
        return model, Scores(model, squashed=_squashed(config)), rows, []
    dense = [_dense(path, step) for step in recipe.dense]
    return model, Vectors(model, recipe, dense), rows, dense


def _encoder_classes(config: dict[str, Any]) -> tuple[type[Any], type[Any]]:
    return (ModernBert, ModernBertArgs) if config["model_type"] == "modernbert" else (Bert, BertArgs)


def _squashed(config: Mapping[str, Any]) -> bool:
    """Whether a classifier's logit goes through a sigmoid, which one with a single label does if nothing is said."""
    written = config.get("sentence_transformers")
    said = written.get("activation_fn") if isinstance(written, dict) else None
    function = str(said or config.get("sbert_ce_default_activation_function") or "Sigmoid").rpartition(".")[2]
    if function not in {"Sigmoid", "Identity"}:
        raise RecipeUnknown(f"the activation {function} of its scores is not known here")
    return function == "Sigmoid"


def _judge(path: Path, config: dict[str, Any], tokenizer: EncoderTokenizer) -> tuple[Any, Computer, int, list[Dense]]:
    """A causal model that says yes or no, under the one prompt that is known here."""
    answers = _Answers(-1)
    for module in modules_of(path):
        if module.name == "LogitScore":
            answers = msgspec.json.decode((path / Path(module.path).name / "config.json").read_bytes(), type=_Answers)
    yes, no = tokenizer.id_of("yes"), tokenizer.id_of("no")
    causal = any(str(it).endswith("ForCausalLM") for it in config.get("architectures") or ())
    if yes is None or no is None or not causal or answers not in {_Answers(-1), _Answers(yes, no)}:
        raise RecipeUnknown("how it is asked for a score is not known here")
    model, _ = load_model(path, lazy=True)
    return model, Scores(YesOrNo(model, yes, no), squashed=True), int(model.model.embed_tokens.weight.shape[0]), []


def _dense(path: Path, step: DenseStep) -> Dense:
    file = path / step.path / "model.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"the weights of its step {step.path} are missing (model.safetensors)")
    weights = mx.load(str(file))
    narrow, wide = weights["linear.weight"].shape
    dense = Dense(wide, narrow, bias=step.bias, activation=step.activation)
    dense.load_weights(list(weights.items()))
    return dense
