"""How long a step will take with weights from disk, before the first one: computed, read, and put together.

Computing is timed in one pass over the real networks in which every tensor is a view of one buffer, so that
it needs no more memory than the largest. Reading is timed on some of the real blocks, past the page cache. A
small simulation then lets the reader run one block ahead, as it does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from caudal.core.config import Frozen
from caudal.inference.generation.streamed import Block, blocks_of, chosen
from caudal.memory import allocator
from caudal.models.generation.face_controlnet import conditioned_on
from caudal.models.generation.layout import ModelFolder
from caudal.models.generation.part import PRECISIONS, Part, open_part, put
from caudal.runs.generation.plan import GenerationPlan

_SAMPLED_BYTES = 256 * 2**20
_TOKENS = 77


class Forecast(Frozen):
    """Seconds of a step: with all weights in memory, and with those beyond the budget read from disk."""

    in_memory_seconds: float
    from_disk_seconds: float
    read_bytes: int
    read_bytes_per_second: float

    @property
    def slowdown(self) -> float:
        """How many times as long a step takes."""
        return self.from_disk_seconds / self.in_memory_seconds


@dataclass
class _Timed:
    """A block with the seconds that it computes, and those that it is read in if it is read."""

    block: Block
    computing: float = 0.0


def forecast(folder: ModelFolder, plan: GenerationPlan) -> Forecast:
    """Time a pass and some reading for a plan whose weights are on disk.

    Raises:
        BadModel: a part cannot be read.
    """
    allocator.give_back_at_once()  # as the session does: it costs time, and that is what is sought
    dtype = PRECISIONS[plan.precision]
    names = ("identity", *folder.controls, "unet")
    parts = [open_part(name, folder) for name in names]
    try:
        blocks = [block for part in parts for block in blocks_of(part, dtype)[0]]
        rate = _reading_rate(blocks, dtype)
        order, total = _computing(parts, blocks, plan, dtype)
    finally:
        for part in parts:
            part.close()
        allocator.trim()
    # The resident blocks are chosen in the order of the session's parts, the UNet's first.
    chosen(sorted(blocks, key=lambda block: block.part.name != "unet"), int(plan.setup.resident))
    gap = max(0.0, total - sum(timed.computing for timed in order)) / max(1, len(order))
    timeline = [
        (timed.computing + gap, 0.0 if timed.block.resident else timed.block.bytes / rate) for timed in order
    ]
    # The first step learns the order and reads nothing ahead.
    first, others = sum(map(sum, timeline)), (plan.steps - 1) * simulated(timeline)
    return Forecast(
        in_memory_seconds=total,
        from_disk_seconds=(first + others) / plan.steps,
        read_bytes=sum(timed.block.bytes for timed in order if not timed.block.resident),
        read_bytes_per_second=rate,
    )


def simulated(blocks: Sequence[tuple[float, float]], passes: int = 3) -> float:
    """Seconds of a pass over blocks of (seconds to compute, seconds to read or 0), once it has settled.

    A block that is read is asked for when the one before it that is read starts to compute.
    """
    now = reader = 0.0
    ready: dict[int, float] = {}
    read = [i for i, (_compute, reading) in enumerate(blocks) if reading > 0]
    following = {i: read[(n + 1) % len(read)] for n, i in enumerate(read)}
    began = 0.0
    for number in range(passes):
        began = now if number == passes - 1 else began
        for i, (computing, reading) in enumerate(blocks):
            if reading > 0:
                if i not in ready:
                    reader = max(reader, now) + reading
                    ready[i] = reader
                now = max(now, ready.pop(i))
                ahead = following[i]
                if ahead != i:
                    reader = max(reader, now) + blocks[ahead][1]
                    ready[ahead] = reader
            now += computing
    return now - began


def _reading_rate(blocks: list[Block], dtype: torch.dtype) -> float:
    """Bytes (as computed with) a second, past the page cache, over blocks spread through the files."""
    sampled, nbytes, seconds = blocks[:: max(1, len(blocks) // 16)], 0, 0.0
    for block in sampled:
        for name in block.names:
            source, entry = block.part.places[name]
            _forget(source)
            target = torch.empty(entry.shape, dtype=dtype)
            began = time.perf_counter()
            source.fill(entry, target)
            seconds += time.perf_counter() - began
            nbytes += target.numel() * target.element_size()
        if nbytes >= _SAMPLED_BYTES:
            break
    return nbytes / max(seconds, 1e-9)


def _forget(source: Any) -> None:
    handle = os.open(source.path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _computing(
    parts: list[Part], blocks: list[Block], plan: GenerationPlan, dtype: torch.dtype
) -> tuple[list[_Timed], float]:
    """Blocks in the order in which they compute, each timed, and the seconds of the whole pass."""
    most = max(tensor.numel() for part in parts for tensor in part.tensors().values())
    buffer = torch.randn(most, dtype=torch.float32, device=plan.device).mul_(0.02).to(dtype)
    for part in parts:
        for name, tensor in part.tensors().items():
            put(part.module, name, buffer[: tensor.numel()].view(tensor.shape))
    order: list[_Timed] = []
    began: dict[int, float] = {}
    hooks = []
    for block in blocks:

        def before(_module: Any, _args: Any, key: int = id(block)) -> None:
            began[key] = _now(plan.device)

        def after(_module: Any, _args: Any, _out: Any, block: Block = block) -> None:
            order.append(_Timed(block, _now(plan.device) - began[id(block)]))

        hooks += [block.module.register_forward_pre_hook(before), block.module.register_forward_hook(after)]
    seconds = 0.0
    for _again in range(2):  # the first one warms up
        order.clear()
        start = _now(plan.device)
        _pass(parts, plan, dtype)
        seconds = _now(plan.device) - start
    for hook in hooks:
        hook.remove()
    for part in parts:
        part.empty()
    return list(order), seconds


def _pass(parts: list[Part], plan: GenerationPlan, dtype: torch.dtype) -> None:
    """One step's work, with numbers that mean nothing."""
    unet = parts[-1].module
    rows = plan.pictures * (2 if plan.guided else 1)
    cross, config = unet.config.cross_attention_dim, unet.config
    shrunk = plan.shrunk
    width, height = plan.width // shrunk, plan.height // shrunk

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=plan.device).to(dtype)

    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    latents, text = new(rows, config.in_channels, height, width), new(rows, _TOKENS, cross)
    added: dict[str, Any] = {"text_embeds": new(rows, pooled), "time_ids": new(rows, 6)}
    projection = unet.encoder_hid_proj.image_projection_layers[0]
    down: list[torch.Tensor] | None = None
    with torch.inference_mode(), conditioned_on(new(rows, projection.latents.shape[1], cross)):
        for part in parts[:-1]:
            shown = new(rows, 3, plan.height, plan.width)
            more, mid = part.module(latents, 10, text, shown, added_cond_kwargs=added, return_dict=False)
            down = more if down is None else [a + b for a, b in zip(down, more, strict=True)]
        added["image_embeds"] = [new(rows, 1, 1, projection.proj_in.in_features)]
        unet(
            latents, 10, text, added_cond_kwargs=added, return_dict=False,
            down_block_additional_residuals=down, mid_block_additional_residual=mid,
        )  # fmt: skip


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
