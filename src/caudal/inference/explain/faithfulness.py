"""Whether a map names the pixels that matter: deletion and insertion (Petsiuk, Das and Saenko, BMVC 2018).

Deletion replaces the pixels of an image by a baseline, those first that the map calls important; insertion
starts from a baseline and puts them back. The probability of the class is read along the way. Both hold
`batch` images at a time. Legend: B images, C bands, H rows, W columns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from caudal.core.seeds import generator, integer
from caudal.inference.explain.baselines import Baseline, baseline
from caudal.inference.explain.explanation import Column, Curve, Map
from caudal.inference.explain.target import TargetScore

Direction = Literal["deletion", "insertion"]

BASELINES: dict[Direction, Baseline] = {"deletion": "mean", "insertion": "blurred"}
"""As in the paper: a flat grey takes away, and sharp edges of what is put back must not be a signal."""

_RANDOM_CELLS = 8


def curve(
    score: TargetScore,
    x_CHW: torch.Tensor,
    map_HW: Map,
    direction: Direction,
    *,
    points: int = 32,
    batch: int = 8,
    instead: Baseline | None = None,
    random_area: float = float("nan"),
    seed: int = 0,
) -> Curve:
    """The curve of `map_HW` in `points` steps; `instead` is the baseline, by default as in `BASELINES`.

    Pixels of equal value go in a random order, the same at each call.
    """
    nothing_CHW = baseline(x_CHW, instead or BASELINES[direction])
    start_CHW, end_CHW = (x_CHW, nothing_CHW) if direction == "deletion" else (nothing_CHW, x_CHW)
    rank_HW = torch.from_numpy(_ranks(map_HW, seed)).to(x_CHW.device)
    counts = np.linspace(0, map_HW.size, points + 1).round().astype(np.int64)
    found = []
    with torch.no_grad():
        for part in torch.split(torch.from_numpy(counts).to(x_CHW.device), batch):
            changed_B1HW = (rank_HW < part[:, None, None])[:, None]
            found.append(score.probability(torch.where(changed_B1HW, end_CHW, start_CHW)))
    p = torch.cat(found).double().cpu().numpy()
    shares = counts / map_HW.size
    return Curve(shares, p, area_below(shares, p), random_area)


def random_area(
    score: TargetScore,
    x_CHW: torch.Tensor,
    direction: Direction,
    *,
    points: int = 32,
    batch: int = 8,
    instead: Baseline | None = None,
    draws: int = 3,
    seed: int = 0,
) -> float:
    """The mean area of maps of smooth noise: what a map reaches that knows nothing of the model."""
    areas = [
        curve(
            score,
            x_CHW,
            random_map(x_CHW.shape[1], x_CHW.shape[2], seed, draw),
            direction,
            points=points,
            batch=batch,
            instead=instead,
            seed=seed,
        ).area
        for draw in range(draws)
    ]
    return float(np.mean(areas))


def random_map(height: int, width: int, seed: int = 0, draw: int = 0) -> Map:
    """Smooth noise (H, W): normal numbers on a coarse grid, spread over the pixels."""
    noise = torch.Generator().manual_seed(integer(seed, "explain random map", draw))
    coarse = torch.randn(1, 1, _RANDOM_CELLS, _RANDOM_CELLS, generator=noise)
    found: Map = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    return found


def area_below(shares: Column, values: Column) -> float:
    """The area below a curve over [0, 1], by trapezoids: its mean height."""
    return float(np.sum(np.diff(shares) * (values[1:] + values[:-1]) / 2))


def _ranks(map_HW: Map, seed: int) -> npt.NDArray[np.int64]:
    """0 for the most important pixel, and so on; equal values in a random order."""
    lot = generator(seed, "explain ties").permutation(map_HW.size)
    rank = np.empty(map_HW.size, np.int64)
    rank[np.lexsort((lot, -map_HW.ravel()))] = np.arange(map_HW.size)
    return rank.reshape(map_HW.shape)
