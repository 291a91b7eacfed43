"""What safetensors files hold, from their headers alone.

The format (huggingface/safetensors): eight bytes, the header's length as a little-endian unsigned integer; the
header, a JSON object from tensor names to ``{"dtype", "shape", "data_offsets": [begin, end]}``; then the tensors'
bytes, without holes, from offset 0 of the rest.
"""

import math
from pathlib import Path

import msgspec

from app.errors import ModelUnusable

_MAX_HEADER = 100_000_000
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
_POINTER = b"version https://git-lfs"
"""How a file begins that stands in for another in a git repository (git-lfs)."""
_BITS |= {"U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "BOOL": 8}


class Tensor(msgspec.Struct, frozen=True):
    """What a header says of one tensor; ``dtype`` is safetensors' word for it, such as ``BF16``."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.data_offsets[1] - self.data_offsets[0]


def weight_bytes(directory: Path) -> int:
    """Bytes of all tensors in a model directory's ``model*.safetensors``; raises as :func:`weights` does."""
    return sum(tensor.nbytes for tensor in weights(directory).values())


def weights(directory: Path) -> dict[str, Tensor]:
    """All tensors in a model directory's ``model*.safetensors`` by name, and proof that none is cut short.

    Reads headers only, so it takes milliseconds. Raises :class:`app.errors.ModelUnusable` if there are no such
    files or one of them is truncated or corrupt, naming the file.
    """
    files = sorted(directory.glob("model*.safetensors"))
    if not files:
        raise ModelUnusable("The model has no model*.safetensors files: name a model with MLX-loadable weights.")
    return {name: tensor for file in files for name, tensor in tensors_of(file).items()}


def tensor_bytes(file: Path, *, name: str | None = None) -> int:
    """Bytes of the tensors in one file; raises as :func:`tensors_of` does."""
    return sum(tensor.nbytes for tensor in tensors_of(file, name=name).values())


def tensors_of(file: Path, *, name: str | None = None) -> dict[str, Tensor]:
    """The tensors in one file; raises :class:`app.errors.ModelUnusable`, naming it, if it cannot be whole."""
    name = file.name if name is None else name
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            begin = stream.read(len(_POINTER))
            if begin == _POINTER:
                raise pointer(name)
            length = int.from_bytes(begin[:8], "little")
            stream.seek(8)
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise _broken(name, "its header does not fit into it")
            header = msgspec.json.decode(stream.read(length), type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        tensors = {key: msgspec.json.decode(raw, type=Tensor) for key, raw in header.items()}
    except OSError as error:
        raise _broken(name, "it cannot be read") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(name, "its header is not a safetensors header") from error
    _check(name, list(tensors.values()), size - 8 - length)
    return tensors


def _check(name: str, tensors: list[Tensor], held: int) -> None:
    expected = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.data_offsets):
        begin, end = tensor.data_offsets
        if begin != expected or end < begin:
            raise _broken(name, "its tensors overlap or leave holes")
        bits = _BITS.get(tensor.dtype)
        if bits is not None and math.prod(tensor.shape) * bits != (end - begin) * 8:
            raise _broken(name, "a tensor's size contradicts its shape")
        expected = end
    if held != expected:
        raise _broken(name, f"it holds {held} bytes of tensors and its header promises {expected}")


def pointer(name: str) -> ModelUnusable:
    """The failure of a model one of whose files is not itself there."""
    return ModelUnusable(
        f"The weights file {name} is a git-lfs pointer: a few lines that stand in for the weights. Run `git lfs pull` "
        "in the model's directory, or pull the model from the hub.",
        code="model_corrupt",
    )


def _broken(name: str, why: str) -> ModelUnusable:
    return ModelUnusable(
        f"The weights file {name} is truncated or corrupt: {why}. Pull the model again to repair it.",
        code="model_corrupt",
    )
