"""A planted reason: images whose class is one small patch, and a network that learned to find it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SIDE, PATCH = 32, 8

UPRIGHT_HW = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(PATCH // 4)[None].expand(PATCH, PATCH) * 2


class Net(nn.Module):
    """Four convolutions, a mean over places, a linear head."""

    def __init__(self, bands: int = 3, classes: int = 2) -> None:
        super().__init__()
        widths = [bands, 8, 16]
        self.features = nn.Sequential(
            *(
                layer
                for a, b in pairwise(widths)
                for layer in (nn.Conv2d(a, b, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True))
            ),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(16, classes)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.features(x_BCHW)
        scores: torch.Tensor = self.head(x_BCHW.mean((2, 3)))
        return scores


def images(count: int, seed: int, only: int | None = None) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Noise in which each image has a patch of lying stripes; those of class 1 one of upright ones too.

    So the patch that decides is not the only thing to be seen. Returns x_BCHW, labels, masks of the patch.
    """
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, SIDE, SIDE, generator=draw) * 0.3
    labels = torch.randint(0, 2, (count,), generator=draw) if only is None else torch.full((count,), only)
    masks = np.zeros((count, SIDE, SIDE), bool)
    # Halves of the picture, so that the two never overlap.
    for i in range(count):
        rows = torch.randint(0, SIDE - PATCH, (2,), generator=draw).tolist()
        cols = torch.randint(0, SIDE // 2 - PATCH, (2,), generator=draw).tolist()
        swap = int(torch.randint(0, 2, (1,), generator=draw)) * SIDE // 2
        col = cols[0] + swap
        x[i, :, rows[0] : rows[0] + PATCH, col : col + PATCH] += UPRIGHT_HW.T
        if labels[i]:
            col = cols[1] + SIDE // 2 - swap
            here = (slice(rows[1], rows[1] + PATCH), slice(col, col + PATCH))
            x[(i, slice(None), *here)] += UPRIGHT_HW
            masks[(i, *here)] = True
    return x, labels, masks


def trained() -> Net:
    """A network that tells the two classes apart."""
    torch.manual_seed(0)
    net = Net()
    x, labels, _masks = images(256, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    draw = torch.Generator().manual_seed(2)
    for _step in range(90):
        part = torch.randint(0, len(x), (24,), generator=draw)
        loss = F.cross_entropy(net(x[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()
