"""Few points that stand for a stream of any length, every point near one of them, in fixed bytes.

Points nearer than a radius to one that is kept are dropped. When no more can be kept the radius grows and
those that are kept are thinned (the doubling algorithm of Charikar, Chekuri, Feder and Motwani, SIAM J.
Computing 33, 2004, with smaller steps). Legend: N points, K kept points, D features.
"""

from __future__ import annotations

import numpy as np
import torch

from caudal.core.errors import DoesNotFit
from caudal.core.messages import _
from caudal.core.units import Bytes

CHUNK = 128
"""Rows whose distances to all kept points are held at once."""
LEAST_ROWS = 64
"""Fewer points stand for nothing."""
_SAME, _GROWTH, _FULL = 1e-2, 1.05, 0.85


class Coreset:
    """Keeps at most `rows` points of `columns` features; holds no more than `bytes_for(rows, columns)`."""

    def __init__(self, rows: int, columns: int) -> None:
        self.radius = _SAME
        self._kept = torch.empty(rows, columns)
        self._room = torch.empty(CHUNK * rows)
        self._count = 0

    @staticmethod
    def bytes_for(rows: int, columns: int) -> int:
        """Bytes held at the most while points are taken or thinned."""
        points = 4 * columns * (2 * rows + 4 * CHUNK)
        distances = 4 * CHUNK * (rows + 4 * CHUNK)
        return points + distances + 16 * rows

    @classmethod
    def within(cls, budget_bytes: int, columns: int, most_rows: int) -> Coreset:
        """The largest that fits.

        Raises:
            DoesNotFit: not even a few points do.
        """
        fixed = cls.bytes_for(0, columns)
        rows = min(most_rows, (budget_bytes - fixed) // (cls.bytes_for(1, columns) - fixed))
        if rows < LEAST_ROWS:
            needed = Bytes(cls.bytes_for(LEAST_ROWS, columns))
            raise DoesNotFit(
                _("A memory of normal patches needs at least {needed}, and {budget} are left.").format(
                    needed=needed, budget=Bytes(max(0, budget_bytes))
                ),
                _("Give a larger budget with --ram, or choose the model rx."),
                needed=needed,
            )
        return cls(rows, columns)

    @property
    def points(self) -> torch.Tensor:
        """What is kept, (K, D); a view."""
        return self._kept[: self._count]

    def take(self, points_ND: torch.Tensor) -> None:
        """Keep what is further than the radius from all that is kept."""
        for part in torch.split(points_ND, CHUNK):
            fresh = part[self._far_from_kept(part)]
            while len(fresh):
                chosen = fresh[_spread(fresh, self.radius)]
                room = len(self._kept) - self._count
                if len(chosen) <= room:
                    self._kept[self._count : self._count + len(chosen)] = chosen
                    self._count += len(chosen)
                    break
                self._thin()
                fresh = fresh[self._far_from_kept(fresh)]

    def _far_from_kept(self, part_ND: torch.Tensor) -> torch.Tensor:
        if not self._count:
            return torch.ones(len(part_ND), dtype=torch.bool)
        return nearest(part_ND, self.points, self._room) > self.radius

    def _thin(self) -> None:
        """Grow the radius until a good part of the room is free."""
        goal = int(_FULL * len(self._kept))
        while True:
            self.radius = max(self.radius * _GROWTH, self._close_pairs())
            kept = 0
            for start in range(0, self._count, CHUNK):
                part = self._kept[start : min(start + CHUNK, self._count)].clone()
                if kept:
                    part = part[nearest(part, self._kept[:kept], self._room) > self.radius]
                part = part[_spread(part, self.radius)]
                self._kept[kept : kept + len(part)] = part
                kept += len(part)
            self._count = kept
            if kept <= goal:
                return

    def _close_pairs(self) -> float:
        """A distance that a tenth of the kept points have to their nearest neighbour, from a part of them."""
        some = self.points[:: max(1, self._count // CHUNK)][:CHUNK]
        # The second nearest: the nearest is the point itself.
        squares = _partial_squares(some, self.points, self._room)
        second = squares.topk(min(2, self._count), largest=False).values[:, -1]
        return float(_whole(second, some).quantile(0.1))


def nearest(points_ND: torch.Tensor, kept_KD: torch.Tensor, room_M: torch.Tensor) -> torch.Tensor:
    """The distance (N,) of each point to the nearest kept one.

    `room_M` holds the distances of as many points at a time as fit in, at least of one. It is the same for
    all: a new piece for each, between small results that stay, leaves holes in the heap that the next one
    does not fit into. They were 0 to 300 MiB for one map, by chance.
    """
    rows, far_N = len(room_M) // len(kept_KD), points_ND.new_empty(len(points_ND))
    for start in range(0, len(points_ND), rows):
        part_ND = points_ND[start : start + rows]
        squares = _partial_squares(part_ND, kept_KD, room_M)
        far_N[start : start + rows] = _whole(squares.amin(1), part_ND)
    return far_N


def _partial_squares(points_ND: torch.Tensor, kept_KD: torch.Tensor, room_M: torch.Tensor) -> torch.Tensor:
    """Squared distances (N, K) less the square of each point, which changes no order within a row."""
    count, kept = len(points_ND), len(kept_KD)
    squares_NK = room_M[: count * kept].view(count, kept)
    return torch.addmm(torch.linalg.vecdot(kept_KD, kept_KD), points_ND, kept_KD.T, alpha=-2, out=squares_NK)


def _whole(squares_N: torch.Tensor, points_ND: torch.Tensor) -> torch.Tensor:
    distances_N: torch.Tensor = (squares_N + torch.linalg.vecdot(points_ND, points_ND)).clamp_(min=0).sqrt_()
    return distances_N


def _spread(points_ND: torch.Tensor, radius: float) -> torch.Tensor:
    """Which of at most `CHUNK` points to keep so that no two are within `radius`: the first ones first."""
    near = (torch.cdist(points_ND, points_ND) <= radius).numpy()
    chosen = torch.zeros(len(points_ND), dtype=torch.bool)
    covered = np.zeros(len(near), np.bool_)
    for i in range(len(near)):
        if not covered[i]:
            chosen[i] = True
            covered |= near[i]
    return chosen
