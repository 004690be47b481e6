"""From a batch of patches in files' units to the model's input: copy, normalize, augment."""

from __future__ import annotations

import torch

from caudal.core.labels import IGNORE
from caudal.data.augment import augment
from caudal.data.normalize import Normalization, normalize
from caudal.data.stream import Batch
from caudal.runs.spec import RunSpec
from caudal.training.step import Prepare


def prepare_scenes(spec: RunSpec, normalization: Normalization, device: str) -> Prepare:
    """What makes `x_BCHW` float32 and `y_BHW` class numbers of a part of a `Batch`."""
    tables = normalization.tables(device)

    def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x_BHWC = torch.from_numpy(batch.x_BHWC[part]).to(device, non_blocking=True)
        y_BHW = torch.from_numpy(batch.y_BHW[part]).to(device, non_blocking=True)
        layout_B = torch.from_numpy(batch.layout_B[part]).to(device)
        x_BCHW = normalize(x_BHWC, layout_B, tables)
        x_BCHW, changed_BHW = augment(
            x_BCHW, y_BHW, spec.augmentation, spec.seed, batch.sample_B[part], IGNORE
        )
        assert changed_BHW is not None
        return x_BCHW, changed_BHW

    return prepare
