"""Which numbers a model computes in: bfloat16 where the hardware has it, float16 with a scaler, float32."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """The dtype of autocast on a device."""

    device: str
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """`bf16`, `fp16` or `fp32`."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.dtype, "fp32")

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in this precision inside the `with`."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler; it does nothing but for float16, whose small gradients would vanish."""
        return torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)


def choose(device: str, asked: str, varied: bool = False) -> Precision:
    """The precision for `auto`, or the one asked for.

    `varied`: nearly every batch has shapes of its own. On a CPU each shape has a kernel made for it in
    bfloat16, which is kept: a small network took 9 s and 600 MB for what float32 does in 2.6 s and 8 MB.
    """
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if asked in named:
        return Precision(device, named[asked])
    if device == "cuda":
        return Precision(device, torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16)
    if varied:
        return Precision(device, torch.float32)
    # Without hardware for it bfloat16 on a CPU is slower than float32.
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return Precision(device, torch.bfloat16 if fast else torch.float32)
