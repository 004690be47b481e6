"""One optimizer step: the batch in micro-batches, their gradients added up, then the update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from caudal.data.stream import Batch
from caudal.tasks.base import Task
from caudal.training.adamw import AdamW
from caudal.training.precision import Precision

Prepare = Callable[[Batch, slice], tuple[torch.Tensor, torch.Tensor]]
"""Part of a batch as the model wants it, on the device: `x_BCHW` float32 and `y_BHW`."""


@dataclass
class Stepper:
    """Holds what a step needs. The gradient is that of the mean loss over the whole batch."""

    model: nn.Module
    task: Task
    optimizer: AdamW
    scaler: torch.amp.GradScaler
    precision: Precision
    prepare: Prepare
    micro_batch: int
    clip: float

    def run(self, batch: Batch, rate: float) -> float:
        """Take one step at learning rate `rate`; returns the batch's mean loss before it."""
        size = len(batch.sample_B)
        self.model.train()
        total = 0.0
        for start in range(0, size, self.micro_batch):
            part = slice(start, min(start + self.micro_batch, size))
            x_BCHW, y_BHW = self.prepare(batch, part)
            with self.precision.autocast():
                scores = self.model(x_BCHW)
            # A sum divided by the batch, not a mean of means: parts of any size weigh what they should.
            loss = self.task.loss(scores, y_BHW).sum() / size
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        optimizer = cast(torch.optim.Optimizer, self.optimizer)  # as far as a scaler looks, it is one
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        assert np.isfinite(total) or self.scaler.is_enabled(), "the loss is not finite"
        return total
