"""Writing tensors to a safetensors file one after the other, with no copy of the whole.

The library's own writer turns every tensor into bytes first and so holds the file twice; this one holds
nothing beside the tensors. Format: 8 bytes of header length, a JSON header, the data.
Reading tensors is the library's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_ALIGNMENT = 8
_PIECE_BYTES = 2**22


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors` under their names, in their own dtypes and shapes."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    # Wide elements first, so that every tensor begins on a multiple of its element's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    end = 0
    for name in order:
        value = tensors[name]
        begin, end = end, end + value.numel() * value.element_size()
        header[name] = {
            "dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(_bytes_of(tensors[name]))


def differing(path: Path, tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of the first of `tensors` that does not lie in the file bit for bit; `None` if all do.

    Read piece by piece, not mapped: mapped pages come and go so fast that a meter takes them for memory held.
    """
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        for name, value in tensors.items():
            whole = memoryview(_bytes_of(value))
            begin, end = header[name]["data_offsets"]
            if end - begin != len(whole) or header[name]["dtype"] != _NAMES[value.dtype]:
                return name
            file.seek(8 + length + begin)
            for first in range(0, len(whole), _PIECE_BYTES):
                wanted = whole[first : first + _PIECE_BYTES]
                if file.readinto(buffer[: len(wanted)]) != len(wanted) or buffer[: len(wanted)] != wanted:
                    return name
    return None


def _bytes_of(tensor: torch.Tensor) -> memoryview | bytes:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""
