"""Robust statistics of a training set, taken in a stream, and what a model does with them.

For each band of each layout: centre (median) and spread (half the distance between the quartiles), then
the inverse hyperbolic sine, then mean 0 and deviation 1. Around the centre that is a straight line; far
out it is a logarithm, so neither a bright cloud nor a dark scene leaves the range that a network sees.
(Astronomers show faint and bright sources in one picture this way: Lupton, Gunn and Szalay, AJ 118,
1999.) The figures are stored with the model, and prediction uses the same ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from caudal.core.config import Frozen

Rows = tuple[tuple[float, ...], ...]


class Normalization(Frozen):
    """What turns a file's values into the model's: (asinh((x - centre) * slope) - offset) * scale.

    One row a layout, one figure a band in the model's order. `layouts` name the bands of each layout as
    the files do, `order` says which file band is the model's band k.
    """

    layouts: tuple[tuple[str, ...], ...]
    order: tuple[tuple[int, ...], ...]
    centre: Rows
    slope: Rows
    offset: Rows
    scale: Rows

    @classmethod
    def plain(cls, bands: int) -> Normalization:
        """One layout whose values are used as they are, for when nothing is known of them."""
        # So close to the centre the inverse hyperbolic sine is a straight line.
        zero, near, back = ((0.0,) * bands,), ((1e-7,) * bands,), ((1e7,) * bands,)
        order = (tuple(range(bands)),)
        return cls(layouts=((),), order=order, centre=zero, slope=near, offset=zero, scale=back)

    @property
    def bands(self) -> int:
        """Bands of the model's input."""
        return len(self.order[0])

    def layout_for(self, band_names: tuple[str, ...]) -> int:
        """The number of the layout whose bands have these names; the first when none has."""
        return self.layouts.index(band_names) if band_names in self.layouts else 0

    def fill(self) -> npt.NDArray[np.float32]:
        """Values in the files' own units that become 0; shape (layouts, bands)."""
        centre, slope = np.array(self.centre), np.array(self.slope)
        with np.errstate(divide="ignore", invalid="ignore"):
            away = np.where(slope > 0, np.sinh(np.array(self.offset)) / slope, 0.0)
        return np.asarray(centre + away, np.float32)

    def tables(self, device: str) -> torch.Tensor:
        """Centre, slope, offset and scale as one tensor of shape (4, layouts, bands)."""
        return torch.tensor([self.centre, self.slope, self.offset, self.scale], device=device)


def normalize(x_BHWC: torch.Tensor, layout_B: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Values of any dtype, bands in the model's order, to float32 `x_BCHW` in channels-last memory."""
    centre, slope, offset, scale = (table[layout_B][:, None, None, :] for table in tables)
    x_BHWC = (x_BHWC.to(torch.float32) - centre).mul_(slope)
    return _asinh(x_BHWC).sub_(offset).mul_(scale).permute(0, 3, 1, 2)


def _asinh(x: torch.Tensor) -> torch.Tensor:
    # By its definition, from functions that have vector code: torch's own asinh takes seven times as long.
    size = x.abs()
    return (size * size).add_(1).sqrt_().add_(size).log_().copysign_(x)


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

    def result(self, layout: int) -> tuple[npt.NDArray[np.float64], ...]:
        """Centre, slope, offset and scale of each band of a layout."""
        x_NC = np.concatenate(self._rows[layout]).astype(np.float64)
        low, centre, high = np.percentile(x_NC, [25, 50, 75], axis=0)
        # Where half of the pixels share one value the quartiles say nothing; a band that never changes
        # carries nothing at all and becomes 0, not a division by 0.
        spread = np.where(high > low, (high - low) / 2, x_NC.std(axis=0))
        slope = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0.0)
        bent = np.arcsinh((x_NC - centre) * slope)
        deviation = bent.std(axis=0)
        scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0.0)
        return centre, slope, bent.mean(axis=0), scale
