"""From a batch of patches to what a model of normal images takes, and has to give back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from caudal.core.labels import IGNORE
from caudal.data.augment import augment
from caudal.data.normalize import Normalization, normalize
from caudal.data.stream import Batch
from caudal.inference.forward import Forward
from caudal.models.anomaly_map import MapScores
from caudal.runs.spec import RunSpec
from caudal.tasks.base import Task
from caudal.training.precision import Precision
from caudal.training.step import Prepare


def prepare_normal(spec: RunSpec, normalization: Normalization, device: str) -> Prepare:
    """What makes `x_BCHW` float32 of a part of a batch, and the same with NaN where a pixel is not valid."""
    tables = normalization.tables(device)

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x_BHWC = torch.from_numpy(batch.x_BHWC[part]).to(device, non_blocking=True)
        y_BHW = torch.from_numpy(batch.y_BHW[part]).to(device, non_blocking=True)
        layout_B = torch.from_numpy(batch.layout_B[part]).to(device)
        x_BCHW, changed_BHW = augment(
            normalize(x_BHWC, layout_B, tables),
            y_BHW,
            spec.augmentation,
            spec.seed,
            batch.sample_B[part],
            IGNORE,
        )
        assert changed_BHW is not None
        valid_B1HW = (changed_BHW != IGNORE)[:, None]
        return torch.where(valid_B1HW, x_BCHW, 0.0), torch.where(valid_B1HW, x_BCHW, torch.nan)

    return prepare


def forwards_of(
    model: nn.Module, task: Task, normalization: Normalization, precision: Precision
) -> Callable[[int], Forward]:
    """The model's map as a function of a file's values, for files of a layout."""
    scores = MapScores(model.eval())

    def forward(layout: int) -> Forward:
        return Forward(
            scores, task.probabilities, normalization, layout, precision.device, precision.autocast
        )

    return forward
