"""Changes of a batch that leave its meaning alone, made on the device, keyed by sample.

The numbers come from a counter-based generator keyed by (seed, sample), so a resumed run repeats them.
All of a batch is changed at once; samples differ in the numbers only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from caudal.core.seeds import generator
from caudal.data.augment_settings import Augmentation

_DRAWS = 16  # numbers that a sample may use beside its band mixing


def augment(
    x_BCHW: torch.Tensor,
    y_BHW: torch.Tensor | None,
    settings: Augmentation,
    seed: int,
    samples: npt.NDArray[np.int64],
    ignore: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Change a normalized batch and its classes, if there are any, together; square patches.

    `samples` are the samples' numbers in the run. Pixels drawn from outside a patch are mirrored in the
    image and become `ignore` in the classes.
    """
    bands = x_BCHW.shape[1]
    draws = np.stack(
        [generator(seed, "augment", int(s)).random(_DRAWS + bands * bands, np.float32) for s in samples]
    )
    u = torch.from_numpy(draws).to(x_BCHW.device)
    if settings.warps or settings.flips:
        x_BCHW, y_BHW = _warp(x_BCHW, y_BHW, settings, u, ignore)
    return _tone(x_BCHW, settings, u), y_BHW


def _signed(u: torch.Tensor) -> torch.Tensor:
    return u * 2 - 1


def _warp(
    x_BCHW: torch.Tensor, y_BHW: torch.Tensor | None, settings: Augmentation, u: torch.Tensor, ignore: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    angle = _signed(u[:, 0]) * np.deg2rad(settings.turn_degrees)
    scale = torch.exp(_signed(u[:, 1]) * np.log1p(settings.zoom))
    if settings.flips:
        angle = angle + torch.floor(u[:, 2] * 4) * (np.pi / 2)
    mirror = torch.where(u[:, 3] < 0.5, -1.0, 1.0) if settings.flips else torch.ones_like(scale)
    cos, sin, zero = torch.cos(angle) * scale, torch.sin(angle) * scale, torch.zeros_like(scale)
    matrix = torch.stack(
        [torch.stack([cos * mirror, -sin, zero], 1), torch.stack([sin * mirror, cos, zero], 1)], 1
    )
    grid = F.affine_grid(matrix, [len(u), 1, *x_BCHW.shape[2:]], align_corners=False)
    x_BCHW = F.grid_sample(x_BCHW, grid, padding_mode="reflection", align_corners=False)
    if y_BHW is None:
        return x_BCHW, None
    # Classes are moved so that `ignore` is 0, which is what lies outside.
    moved = (y_BHW.long() - ignore).float()[:, None]
    y_BHW = F.grid_sample(moved, grid, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0]
    return x_BCHW, y_BHW.round().long() + ignore


def _tone(x_BCHW: torch.Tensor, settings: Augmentation, u: torch.Tensor) -> torch.Tensor:
    bands = x_BCHW.shape[1]
    if settings.mix > 0:
        noise = _signed(u[:, _DRAWS:]).view(-1, bands, bands) * (settings.mix * 3**0.5)
        mixing = torch.eye(bands, device=u.device) + noise
        x_BCHW = torch.einsum("bij,bjhw->bihw", mixing, x_BCHW)
    column = u[:, :, None, None]
    sign = torch.where(column[:, 7:8] < settings.invert, -1.0, 1.0)
    gain = sign * (1 + settings.gain * _signed(column[:, 4:5]))
    shift = settings.shift * _signed(column[:, 5:6])
    bend = settings.bend * _signed(column[:, 6:7])
    x_BCHW = x_BCHW * gain + shift
    if settings.bend > 0:
        x_BCHW = x_BCHW + bend * (x_BCHW * x_BCHW - 1).clamp(-2, 4)
    return x_BCHW.contiguous(memory_format=torch.channels_last)
