"""Writing tensors to a safetensors file one after the other, with no copy of the whole.

The library's own writer turns every tensor into bytes first and so holds the file twice; this one holds
nothing beside the tensors. Format: 8 bytes of header length, a JSON header, the data.
Reading is the library's.
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
            flat = tensors[name].detach().cpu().contiguous().view(-1)
            if flat.numel():
                file.write(flat.view(torch.uint8).numpy().data)
