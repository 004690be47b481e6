"""How long a step will take with weights from disk, said before the first one: rehearsed, not computed.

Reading and computing share processors, memory and a disk with each other and with whoever else works there,
so times that were taken apart do not add up. The networks, already where they will work, do the work of a
step twice on numbers that mean nothing. In the first pass nothing is read ahead: it shows in which order
blocks come, and what the step takes without reading. The second is as every step will be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from caudal.core.config import Frozen
from caudal.inference.generation.denoise import halted
from caudal.inference.generation.streamed import Streamed
from caudal.models.generation.face_controlnet import conditioned_on
from caudal.models.generation.part import PRECISIONS, Part
from caudal.runs.generation.plan import GenerationPlan

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


def rehearse(
    parts: Sequence[Part],
    streamed: Streamed,
    plan: GenerationPlan,
    stop: Callable[[], bool] = lambda: False,
) -> Forecast:
    """Time a step of `parts` (ControlNets, then the UNet), whose weights `streamed` brings.

    Raises:
        Interrupted: `stop` said yes after a pass.
    """
    computing, took, reading = [], 0.0, 0.0
    for _pass in range(2):
        waited, read = streamed.waited_seconds, streamed.reading_seconds
        began = _now(plan.device)
        _work(parts, plan)
        took = _now(plan.device) - began
        computing.append(took - (streamed.waited_seconds - waited))
        reading = streamed.reading_seconds - read
        if stop():
            raise halted()
    return Forecast(
        in_memory_seconds=min(computing),  # the first is not used to it yet, the second shares processors
        from_disk_seconds=took,
        read_bytes=streamed.streamed_bytes,
        read_bytes_per_second=streamed.streamed_bytes / max(reading, 1e-9),
    )


def _work(parts: Sequence[Part], plan: GenerationPlan) -> None:
    """One step's work, with numbers that mean nothing."""
    unet, dtype = parts[-1].module, PRECISIONS[plan.precision]
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
