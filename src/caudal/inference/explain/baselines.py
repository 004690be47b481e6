"""What stands for “nothing there” in an image: zero, the image's own mean, or the image blurred away."""

from __future__ import annotations

from typing import Literal

import torch

Baseline = Literal["zero", "mean", "blurred"]

_BLUR_SHARE = 0.1
"""Standard deviation of the blur as a share of the image's shorter side."""


def baseline(x_CHW: torch.Tensor, kind: Baseline) -> torch.Tensor:
    """An image of the same shape that tells the model nothing.

    `zero` is the centre of the training set, as images are normalized; `mean` the mean of each band of this
    image; `blurred` keeps its large areas of colour and drops every shape in it.
    """
    if kind == "zero":
        return torch.zeros_like(x_CHW)
    if kind == "mean":
        return x_CHW.mean((1, 2), keepdim=True).expand_as(x_CHW).contiguous()
    import cv2

    sigma = max(1.0, _BLUR_SHARE * min(x_CHW.shape[1:]))
    bands = [cv2.GaussianBlur(band, (0, 0), sigma) for band in x_CHW.cpu().numpy()]
    return torch.stack([torch.from_numpy(band) for band in bands]).to(x_CHW.device)
