"""A low-rank adapter (LoRA) for a network: added to each weight while it is read, and nowhere held.

So it costs no memory, and works for weights that stay on disk or in 8 bits, too. Reads the two layouts that
are published: names of kohya (`lora_unet_down_blocks_0_….lora_down.weight`, with `alpha`), and names of
diffusers and peft (`unet.down_blocks.0.….lora_A.weight`, or `.lora.down.weight`). What an adapter was trained
for is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from caudal.core.errors import BadModel
from caudal.core.messages import _
from caudal.models.tensor_files import Entry, TensorSource

_PREFIXES = ("base_model.model.", "unet.", "lora_unet_")
_ENDS = re.compile(
    r"\.(?:(?P<down>lora_down|lora_A|lora_A\.default|lora\.down|down)"
    r"|(?P<up>lora_up|lora_B|lora_B\.default|lora\.up|up))\.weight$"
)
_PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Addition:
    """`scale · up · down`, which is added to a weight; `down` is (rank, in, …), `up` (out, rank, …)."""

    source: TensorSource
    down: Entry
    up: Entry
    scale: float

    def add_to(self, weight: torch.Tensor) -> None:
        """Add it in full precision, some rows at a time."""
        down = self._read(self.down, weight.device).flatten(1)
        up = self._read(self.up, weight.device).flatten(1).mul_(self.scale)
        rows = max(1, _PIECE_BYTES // (4 * down.shape[1]))
        flat = weight.flatten(1)
        for first in range(0, len(flat), rows):
            piece = flat[first : first + rows]
            piece.copy_(piece.float().addmm_(up[first : first + rows], down))

    def _read(self, entry: Entry, device: torch.device) -> torch.Tensor:
        values = torch.empty(entry.shape, dtype=entry.dtype)
        self.source.fill(entry, values)
        return values.to(device, torch.float32)


def additions(source: TensorSource, tensors: Mapping[str, torch.Tensor]) -> dict[str, Addition]:
    """What the adapter in `source` adds to each of a network's tensors, by their names.

    Raises:
        BadModel: it is none, is for another network, or changes more than this network.
    """
    modules = {name.removesuffix(".weight"): name for name in tensors if name.endswith(".weight")}
    # kohya writes points as underscores, which cannot be undone; but it can be done to ours.
    modules |= {name.replace(".", "_"): full for name, full in list(modules.items())}
    pairs: dict[str, dict[str, Entry]] = {}
    alphas: dict[str, Entry] = {}
    for name, entry in source.entries.items():
        ends = _ENDS.search(name)
        if ends is None and not name.endswith(".alpha"):
            raise _wrong(source.path, _("it holds “{name}”, which is not known").format(name=name))
        stem = name.removesuffix(".alpha") if ends is None else name[: ends.start()]
        known = next((modules[one] for one in _stripped(stem) if one in modules), None)
        if known is None:
            raise _wrong(source.path, _("“{name}” is in no place of this UNet").format(name=name))
        if ends is None:
            alphas[known] = entry
        else:
            pairs.setdefault(known, {})["down" if ends["down"] else "up"] = entry
    if not pairs:
        raise _wrong(source.path, _("it holds nothing of low rank"))
    found = {}
    for name, pair in pairs.items():
        if len(pair) < 2:
            raise _wrong(source.path, _("one half for “{name}” is missing").format(name=name))
        down, up, shape = pair["down"], pair["up"], tuple(tensors[name].shape)
        rank = down.shape[0] if down.shape else 0
        ones = (1,) * (len(shape) - 2)
        if not rank or down.shape[1:] != shape[1:] or up.shape != (shape[0], rank, *ones):
            raise _wrong(
                source.path,
                _("“{name}” is {there} and the UNet needs {wanted}").format(
                    name=name, there=f"{up.shape} · {down.shape}", wanted=shape
                ),
            )
        found[name] = Addition(source, down, up, _alpha(source, alphas.get(name), rank) / rank)
    return found


def _stripped(stem: str) -> Iterator[str]:
    """A module's name with all beginnings that files put before it taken away, one more each time."""
    yield stem
    for prefix in _PREFIXES:
        if stem.startswith(prefix):
            stem = stem.removeprefix(prefix)
            yield stem


def _alpha(source: TensorSource, entry: Entry | None, rank: int) -> float:
    if entry is None:
        return float(rank)
    value = torch.empty(entry.shape, dtype=entry.dtype)
    source.fill(entry, value)
    return float(value)


def _wrong(path: Path, why: str) -> BadModel:
    return BadModel(
        _("{path} cannot be merged into this model: {why}.").format(path=path, why=why),
        _("Give an LCM adapter for SDXL as a .safetensors file."),
    )
