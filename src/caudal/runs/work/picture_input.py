"""Pictures as a network takes them, each by its own mean and deviation: light and film do not count."""

from __future__ import annotations

import torch

_FLAT = 1.0  # levels of 256: a picture that varies less shows nothing, and its noise is not blown up


def by_picture(x_BHWC: torch.Tensor) -> torch.Tensor:
    """Values of any dtype to float32 `x_BCHW` (channels last in memory), mean 0 and deviation 1 in each band.

    Mean and deviation are of that band of that picture alone, over its finite values; all others become 0. So
    does a band that is the same everywhere.
    """
    whole = not x_BHWC.is_floating_point()
    x_BHWC = x_BHWC.to(torch.float32)
    if not whole:
        known = torch.isfinite(x_BHWC)
        count = known.sum((1, 2), keepdim=True).clamp(min=1)
        x_BHWC = torch.where(known, x_BHWC, 0.0)
        centred = torch.where(known, x_BHWC - x_BHWC.sum((1, 2), keepdim=True) / count, 0.0)
        size = x_BHWC.abs().amax((1, 2), keepdim=True)
        deviation = (centred.square().sum((1, 2), keepdim=True) / count).sqrt()
        least = 1e-5 * size
    else:
        centred = x_BHWC - x_BHWC.mean((1, 2), keepdim=True)
        deviation = centred.square().mean((1, 2), keepdim=True).sqrt()
        least = torch.full_like(deviation, _FLAT)
    scaled = torch.where(deviation > 0, centred / torch.maximum(deviation, least), 0.0)
    return scaled.permute(0, 3, 1, 2)
