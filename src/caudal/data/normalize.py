"""Robust statistics of a training set, taken in a stream, and what a model does with them.

One offset and scale for each band of each layout: mean and standard deviation of the values between
the 0.5th and the 99.5th percentile. They are stored with the model, and prediction uses the same ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from caudal.core.config import Frozen

# A value further out than this many deviations says no more than that it is far out.
LIMIT = 8.0


class Normalization(Frozen):
    """What turns a file's values into the model's: (x - offset) * scale, per layout and band.

    `layouts` name the bands of each layout as the files do, `order` says which file band is the model's
    band k.
    """

    layouts: tuple[tuple[str, ...], ...]
    order: tuple[tuple[int, ...], ...]
    offset: tuple[tuple[float, ...], ...]
    scale: tuple[tuple[float, ...], ...]

    @property
    def bands(self) -> int:
        """Bands of the model's input."""
        return len(self.order[0])

    def layout_for(self, band_names: tuple[str, ...]) -> int:
        """The number of the layout whose bands have these names; the first when none has."""
        return self.layouts.index(band_names) if band_names in self.layouts else 0

    def tables(self, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Offset and scale as tensors of shape (layouts, bands)."""
        return torch.tensor(self.offset, device=device), torch.tensor(self.scale, device=device)


def normalize(
    x_BHWC: torch.Tensor, layout_B: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Values of any dtype, bands in the model's order, to float32 `x_BCHW` in channels-last memory."""
    offset, scale = (table[layout_B][:, None, None, :] for table in tables)
    x_BHWC = (x_BHWC.to(torch.float32) - offset).mul_(scale).clamp_(-LIMIT, LIMIT)
    return x_BHWC.permute(0, 3, 1, 2)


class Statistics:
    """Gathers pixels in a stream, holding no more than `keep` of each layout."""

    def __init__(self, layouts: int, bands: int, keep: int = 200_000) -> None:
        self._keep = keep
        self._rows: list[list[npt.NDArray[np.float32]]] = [[] for _layout in range(layouts)]
        self._held = [0] * layouts
        self._bands = bands

    def add(self, layout: int, x_NC: npt.NDArray[np.float32]) -> None:
        """Take valid pixels, bands in the model's order."""
        self._rows[layout].append(x_NC)
        self._held[layout] += len(x_NC)
        if self._held[layout] > 2 * self._keep:
            # Every other pixel of what is held: still spread over all that was seen.
            merged = np.concatenate(self._rows[layout])[::2]
            self._rows[layout], self._held[layout] = [merged], len(merged)

    def seen(self, layout: int) -> bool:
        """Whether the layout had any valid pixel."""
        return self._held[layout] > 0

    def result(self, layout: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Offset and scale of each band of a layout."""
        x_NC = np.concatenate(self._rows[layout]).astype(np.float64)
        low, high = np.percentile(x_NC, [0.5, 99.5], axis=0)
        x_NC = np.clip(x_NC, low, high)
        deviation = x_NC.std(axis=0)
        # A band that never changes carries nothing: it becomes 0, not a division by 0.
        scale = np.where(deviation > 0, 1.0 / np.maximum(deviation, 1e-30), 0.0)
        return tuple(map(float, x_NC.mean(axis=0))), tuple(map(float, scale))
