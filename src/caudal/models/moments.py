"""Mean and covariance of pixels in a stream, and covariances that can be inverted.

Legend: N pixels, C bands. Nothing is held but one mean and one covariance.
"""

from __future__ import annotations

import torch

FLOOR = 1e-6
"""The least that a covariance is shrunk, so that bands that repeat one another can be inverted."""
_ROWS = 1 << 16


class Moments:
    """Mean and scatter of rows, in float64: merged part by part (Chan, Golub and LeVeque 1983)."""

    def __init__(self, columns: int) -> None:
        self.count = 0
        self.mean_C = torch.zeros(columns, dtype=torch.float64)
        self.scatter_CC = torch.zeros(columns, columns, dtype=torch.float64)

    def add(self, x_NC: torch.Tensor) -> None:
        """Take rows of any floating type, from any device; converted by no more than 65 536 at once."""
        for part in torch.split(x_NC, _ROWS):
            rows = part.to("cpu", torch.float64)
            if len(rows):
                mean_C = rows.mean(0)
                away = rows - mean_C
                self.merge(len(rows), mean_C, away.T @ away)

    def merge(self, count: int, mean_C: torch.Tensor, scatter_CC: torch.Tensor) -> None:
        """Take the count, mean and scatter of other rows."""
        total = self.count + count
        gap_C = mean_C - self.mean_C
        self.scatter_CC += scatter_CC + torch.outer(gap_C, gap_C) * (self.count * count / total)
        self.mean_C += gap_C * (count / total)
        self.count = total

    def covariance(self) -> torch.Tensor:
        """Of the rows as a sample, (C, C) float64; 0 of fewer than two."""
        return self.scatter_CC / max(1, self.count - 1)


def shrunk(covariance_XCC: torch.Tensor, count_X: torch.Tensor, share: float | None) -> torch.Tensor:
    """Covariances pulled towards that of a ball with the same trace, by `share`: they can be inverted.

    Without a `share`, by what is best for Gaussian rows as many as `count_X` (oracle-approximating shrinkage,
    Chen, Wiesel, Eldar and Hero, IEEE Trans. Signal Processing 58, 2010): nearly all with few rows, nearly
    nothing with many; at least `FLOOR`. A covariance of zeros becomes a ball of radius `FLOOR`.
    """
    size = covariance_XCC.shape[-1]
    trace_X = covariance_XCC.diagonal(dim1=-2, dim2=-1).sum(-1)
    if share is None:
        squares_X = (covariance_XCC * covariance_XCC).sum((-2, -1))
        above_X = (1 - 2 / size) * squares_X + trace_X**2
        below_X = (count_X + 1 - 2 / size) * (squares_X - trace_X**2 / size)
        share_X = torch.where(below_X > above_X, above_X / below_X.clamp(min=1e-300), 1.0)
        share_X = share_X.clamp(min=FLOOR)
    else:
        share_X = torch.full_like(trace_X, max(share, FLOOR))
    ball_X = share_X * trace_X / size
    ball_X = torch.where(trace_X > 0, ball_X, FLOOR)
    pulled = covariance_XCC * (1 - share_X)[..., None, None]
    pulled.diagonal(dim1=-2, dim2=-1).add_(ball_X[..., None])
    return pulled
