"""One pass over normal data, for models that learn without a gradient."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from caudal.core.units import MIB
from caudal.models.anomaly_map import Fitted
from caudal.training.step import Parts, Prepare, StepBatch

FIT_BYTES = 64 * MIB
"""What a model may hold while it learns, beside the batch that it is given."""


class Taker:
    """Gives a model batch after batch, in micro-batches. `prepare` makes `x_BCHW`, and the same with NaN
    where a pixel is not valid.
    """  # fmt: skip

    def __init__(self, model: nn.Module, prepare: Prepare, parts: Parts, micro_batch: int) -> None:
        assert isinstance(model, Fitted)
        self.model, self.micro_batch = model, micro_batch
        self._prepare, self._parts, self._begun = prepare, parts, False

    @torch.no_grad()
    def run(self, batch: StepBatch, rate: float = 0.0) -> float:
        """Take one batch, the first of all to begin with; there is no loss, and 0 is given."""
        if not self._begun:
            cast(Fitted, self.model).begin(FIT_BYTES)
            self._begun = True
        for part in self._parts(batch, self.micro_batch):
            x_BCHW, target_BCHW = self._prepare(batch, part)
            valid_BHW = ~torch.isnan(target_BCHW).any(1)
            cast(Fitted, self.model).take(x_BCHW, None if bool(valid_BHW.all()) else valid_BHW)
        return 0.0
