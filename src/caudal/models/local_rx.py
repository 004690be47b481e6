"""Reed and Yu's distance of each pixel from a ring of pixels around it, strip by strip.

The moments of all rings come from sums over squares, and those from running sums: the cost of a pixel does
not depend on the ring's size. Legend: C band, P products of bands, H row, W column, N pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from caudal.models.moments import shrunk

STRIP_BYTES = 32 << 20
"""About what one strip's sums may take."""
NOISE = 1e-4
"""Variance that every band is taken to have besides, in normalized units (a hundredth of the deviation): on
flat water a single grey level is no anomaly, and rounding in the sums is none either."""


def local_scores(x_CHW: torch.Tensor, guard_px: int, outer_px: int, shrinkage: float | None) -> torch.Tensor:
    """Squared distances (H, W), float32.

    The ring is the square of `outer_px` around a pixel less that of `guard_px` (both odd), as far as it is
    inside the image. A ring without two pixels says nothing: its distance is 0.
    """
    bands, high, wide = x_CHW.shape
    reach = outer_px // 2
    planes = 1 + bands + bands * (bands + 1) // 2
    rows = max(1, STRIP_BYTES // (8 * 3 * planes * (wide + outer_px)) - outer_px)
    scores = torch.empty(high, wide, device=x_CHW.device)
    for top in range(0, high, rows):
        bottom = min(high, top + rows)
        first, last = max(0, top - reach), min(high, bottom + reach)
        strip = x_CHW[:, first:last].double()
        count_HW, sum_CHW, product_PHW = _ring_sums(strip, guard_px, outer_px, top - first, bottom - top)
        here_CHW = strip[:, top - first : bottom - first]
        scores[top:bottom] = _distances(here_CHW, count_HW, sum_CHW, product_PHW, shrinkage)
    return scores


def _ring_sums(
    x_CHW: torch.Tensor, guard_px: int, outer_px: int, top: int, rows: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels, sums and sums of products over the rings of `rows` rows from `top` on."""
    bands = len(x_CHW)
    one, two = torch.triu_indices(bands, bands, device=x_CHW.device)
    planes = torch.cat([torch.ones_like(x_CHW[:1]), x_CHW, x_CHW[one] * x_CHW[two]])
    ring = _square_sums(planes, outer_px, top, rows) - _square_sums(planes, guard_px, top, rows)
    return ring[0], ring[1 : 1 + bands], ring[1 + bands :]


def _square_sums(planes: torch.Tensor, side_px: int, top: int, rows: int) -> torch.Tensor:
    """Sums over the square of `side_px` around each pixel of some rows; outside the image lies nothing."""
    reach, high = side_px // 2, planes.shape[1]
    down = F.pad(planes.cumsum(1), (0, 0, 1, 0))
    centre = torch.arange(top, top + rows, device=planes.device)
    after, before = (centre + reach + 1).clamp(max=high), (centre - reach).clamp(min=0)
    columns = down[:, after] - down[:, before]
    wide = planes.shape[2]
    across = F.pad(columns.cumsum(2), (1, 0))
    centre = torch.arange(wide, device=planes.device)
    return across[:, :, (centre + reach + 1).clamp(max=wide)] - across[:, :, (centre - reach).clamp(min=0)]


def _distances(
    x_CHW: torch.Tensor,
    count_HW: torch.Tensor,
    sum_CHW: torch.Tensor,
    product_PHW: torch.Tensor,
    shrinkage: float | None,
) -> torch.Tensor:
    bands, high, wide = x_CHW.shape
    one, two = torch.triu_indices(bands, bands, device=x_CHW.device)
    x_CN, sum_CN, product_PN = x_CHW.flatten(1), sum_CHW.flatten(1), product_PHW.flatten(1)
    count_N = count_HW.flatten()
    scores_N = torch.zeros(high * wide, device=x_CHW.device)
    pixels = max(1, STRIP_BYTES // (8 * 4 * bands * bands))
    for start in range(0, high * wide, pixels):
        part = slice(start, start + pixels)
        count = count_N[part]
        mean_CN = sum_CN[:, part] / count.clamp(min=1)
        scatter_PN = product_PN[:, part] - mean_CN[one] * mean_CN[two] * count
        covariance_CCN = scatter_PN.new_empty(bands, bands, len(count))
        covariance_CCN[one, two] = covariance_CCN[two, one] = scatter_PN / (count - 1).clamp(min=1)
        covariance_NCC = covariance_CCN.permute(2, 0, 1)
        covariance_NCC.diagonal(dim1=1, dim2=2).clamp_(min=0).add_(NOISE)
        safe_CCN = shrunk(covariance_NCC, count, shrinkage).permute(1, 2, 0)
        scores_N[part] = _mahalanobis(safe_CCN, x_CN[:, part] - mean_CN).where(count > 1, 0.0).float()
    return scores_N.view(high, wide)


def _mahalanobis(covariance_CCN: torch.Tensor, away_CN: torch.Tensor) -> torch.Tensor:
    """Squared distances (N,); both arguments are used up.

    Elimination without exchanges, for all pixels at once: for many small matrices far faster than a library
    that is called for each.
    """
    squares_N = torch.zeros_like(away_CN[0])
    for band in range(len(away_CN)):
        pivot_N = covariance_CCN[band, band]
        squares_N += away_CN[band] ** 2 / pivot_N
        factor_CN = covariance_CCN[band + 1 :, band] / pivot_N
        away_CN[band + 1 :] -= factor_CN * away_CN[band]
        covariance_CCN[band + 1 :, band + 1 :] -= factor_CN[:, None] * covariance_CCN[band, band + 1 :]
    return squares_N
