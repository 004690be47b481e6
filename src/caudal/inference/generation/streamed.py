"""Weights that stay on disk and are read while the network works: the next block while this one computes.

A block is a transformer block, a residual block or a layer that stands alone. Some blocks may stay in memory;
they are spread evenly, so that reading always has something to hide behind. What is held is the resident
blocks, the one at work and the one that is being read. Pages of the file are given back as they are read, so
the page cache takes no part in it. What is read ahead follows the order that a pass before has shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from caudal.models.generation.part import Part, put

_BLOCKS = (
    "BasicTransformerBlock",
    "ResnetBlock2D",
    "IPAdapterPlusImageProjectionBlock",
    "CLIPEncoderLayer",
)
_SMALL_BYTES = 2**20  # what is smaller stays: reading it takes longer to ask for than to do


@dataclass
class Block:
    """A module whose weights come and go together. `names` are its tensors' in the part."""

    part: Part
    module: nn.Module
    names: list[str]
    bytes: int
    resident: bool = False
    pending: Future[None] | None = None
    following: Block | None = None
    loaded: bool = False
    owned: list[tuple[nn.Module, str]] = field(default_factory=list)

    def give_back(self) -> None:
        """Empty its tensors."""
        self.loaded = False
        for owner, name in self.owned:
            value = getattr(owner, name)
            value.data = _hollow(value.shape, value.dtype, value.device)


def blocks_of(part: Part, dtype: torch.dtype) -> tuple[list[Block], list[str]]:
    """The blocks of a part in order, and the names of the small tensors that are always resident."""
    tensors = part.tensors()
    size = {
        name: tensor.numel() * (dtype if tensor.dtype.is_floating_point else tensor.dtype).itemsize
        for name, tensor in tensors.items()
    }
    found: list[Block] = []
    taken: set[str] = set()

    def walk(module: nn.Module, prefix: str) -> None:
        whole = type(module).__name__ in _BLOCKS
        own = module.state_dict(keep_vars=True) if whole else dict(module._parameters)
        names = [f"{prefix}.{name}" if prefix else name for name, value in own.items() if value is not None]
        nbytes = sum(size[name] for name in names)
        if names and nbytes >= _SMALL_BYTES:
            found.append(Block(part, module, names, nbytes))
            taken.update(names)
        if not whole:
            for name, child in module.named_children():
                walk(child, f"{prefix}.{name}" if prefix else name)

    walk(part.module, "")
    return found, [name for name in tensors if name not in taken]


def chosen(blocks: Sequence[Block], resident_bytes: int) -> None:
    """Mark blocks as resident, spread evenly, up to `resident_bytes`."""
    total = sum(block.bytes for block in blocks)
    share = min(1.0, resident_bytes / total) if total else 1.0
    due = held = 0.0
    for block in blocks:
        due += share * block.bytes
        block.resident = held + block.bytes <= due + block.bytes / 2 and held + block.bytes <= resident_bytes
        held += block.bytes if block.resident else 0


class Streamed:
    """Parts whose blocks are read as they are needed. Close it to give all of them back."""

    def __init__(
        self,
        parts: Sequence[Part],
        device: str,
        dtype: torch.dtype,
        resident_bytes: int = 0,
        order: Mapping[int, int] | None = None,
    ) -> None:
        """Load what is resident and hook the rest. `order` is what `order` of another such told."""
        self._device, self._dtype = device, dtype
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="caudal-weights")
        self._hooks: list[Any] = []
        self._last: Block | None = None
        self._ahead: Block | None = None
        self.waited_seconds = self.reading_seconds = 0.0
        self.blocks: list[Block] = []
        for part in parts:
            blocks, small = blocks_of(part, dtype)
            self.blocks += blocks
            empty = {name for name, tensor in part.tensors().items() if tensor.is_meta}
            part.fill([name for name in small if name in empty], device, dtype)
            _move_buffers(part.module, device)
        chosen(self.blocks, resident_bytes)
        tensors = {id(part): part.tensors() for part in parts}
        for block in self.blocks:
            if block.resident:
                self._read(block)
                continue
            # Owners and names, because the tensors themselves are new in every pass.
            for name in block.names:
                path, _dot, leaf = name.rpartition(".")
                block.owned.append((block.part.module.get_submodule(path), leaf))
                # Libraries ask tensors for their device, type and shape before the layer is called.
                there = tensors[id(block.part)][name]
                kind = dtype if there.dtype.is_floating_point else there.dtype
                put(block.part.module, name, _hollow(there.shape, kind, device))
            self._hooks.append(block.module.register_forward_pre_hook(self._before(block)))
            self._hooks.append(block.module.register_forward_hook(self._after(block)))
        for number, following in (order or {}).items():
            self.blocks[number].following = self.blocks[following]

    @property
    def order(self) -> dict[int, int]:
        """Which block follows which, by their numbers, as the last pass has shown."""
        numbers = {id(block): number for number, block in enumerate(self.blocks)}
        return {
            number: numbers[id(block.following)]
            for number, block in enumerate(self.blocks)
            if block.following is not None
        }

    @property
    def streamed_bytes(self) -> int:
        """What each pass reads."""
        return sum(block.bytes for block in self.blocks if not block.resident)

    def close(self) -> None:
        """Unhook, wait for the reader, and empty every part."""
        self._reader.shutdown(wait=True)
        for hook in self._hooks:
            hook.remove()
        for part in {id(block.part): block.part for block in self.blocks}.values():
            part.empty()

    def _before(self, block: Block) -> Callable[..., None]:
        def come(_module: nn.Module, _args: Any) -> None:
            if not block.loaded:
                began = time.perf_counter()
                self._drop_ahead(but=block)
                (block.pending or self._reader.submit(self._read, block)).result()
                block.pending, block.loaded = None, True
                self.waited_seconds += time.perf_counter() - began
            if self._last is not None and self._last is not block:
                self._last.following = block
            self._last = block
            ahead = block.following
            if ahead is not None and not ahead.loaded and ahead.pending is None:
                self._ahead, ahead.pending = ahead, self._reader.submit(self._read, ahead)

        return come

    def _after(self, block: Block) -> Callable[..., None]:
        def go(_module: nn.Module, _args: Any, _output: Any) -> None:
            block.give_back()

        return go

    def _drop_ahead(self, but: Block) -> None:
        """Give back what was read ahead and is not what came: one block is on its way, never two."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead is not but and ahead.pending is not None:
            ahead.pending.result()
            ahead.pending = None
            ahead.give_back()

    def _read(self, block: Block) -> None:
        began = time.perf_counter()
        with torch.inference_mode(False):
            block.part.fill(block.names, self._device, self._dtype)
        self.reading_seconds += time.perf_counter() - began


def _hollow(shape: torch.Size, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """A tensor of this shape with one number behind it."""
    return torch.empty((1,) * len(shape), dtype=dtype, device=device).expand(shape)


def _move_buffers(module: nn.Module, device: str) -> None:
    for one in module.modules():
        for name, buffer in one._buffers.items():
            if buffer is not None and not buffer.is_meta:
                one._buffers[name] = buffer.to(device)
