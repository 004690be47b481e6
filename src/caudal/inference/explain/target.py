"""Which score is asked about, as a function from images to one number each.

A classifier gives scores (B, K): the target is the score of one class. A segmentation model gives scores
(B, K, H, W): the target is the sum of a class's scores over a region. Legend: B images, K classes, C bands,
H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from caudal.core.errors import BadModel, UsageError
from caudal.core.messages import _

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Target:
    """Class `index`, and for scores of pixels the region (H, W) that they are summed over."""

    index: int
    region_HW: torch.Tensor | None = None


def padding(model: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Rows and columns to add below and right so that the model takes the image."""
    multiple = int(getattr(model, "multiple_px", 1))
    return -height % multiple, -width % multiple


def padded(model: nn.Module, x_BCHW: torch.Tensor) -> torch.Tensor:
    """`x_BCHW` with its last row and column repeated up to the model's multiple."""
    below, right = padding(model, *x_BCHW.shape[2:])
    return F.pad(x_BCHW, (0, right, 0, below), mode="replicate") if below or right else x_BCHW


def scores_of(model: nn.Module, x_BCHW: torch.Tensor) -> torch.Tensor:
    """Scores (B, K) or (B, K, H, W), float32, of images of any size.

    Raises:
        BadModel: the model gives neither, or a number that is not finite.
    """
    scores = model(padded(model, x_BCHW))
    if not isinstance(scores, torch.Tensor) or scores.dim() not in (2, 4):
        found = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise BadModel(
            _("The model gives {found}, and only scores of classes can be explained.").format(found=found),
            _("Explain a model of the task classification or segmentation."),
        )
    scores = scores.float()
    return scores if scores.dim() == 2 else scores[:, :, : x_BCHW.shape[2], : x_BCHW.shape[3]]


def probabilities(scores: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Softmax over classes, of scores divided by `temperature`; of a single score, the logistic function."""
    scores = scores / temperature
    return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(1)


class TargetScore(nn.Module):
    """`model` seen through `target`: images (B, C, H, W) to scores (B,)."""

    def __init__(self, model: nn.Module, target: Target) -> None:
        super().__init__()
        self.model, self.target = model, target

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The target's score of each image; for a region, the sum over its pixels."""
        scores = scores_of(self.model, x_BCHW)[:, self.target.index]
        region_HW = self.target.region_HW
        return scores if region_HW is None else (scores * region_HW).sum((1, 2))

    @torch.no_grad()
    def probability(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """The target's probability in each image; for a region, the mean over its pixels."""
        return self.all_probabilities(x_BCHW)[:, self.target.index]

    @torch.no_grad()
    def all_probabilities(self, x_BCHW: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Every class's probability (B, K), softened by `temperature`; for a region, means over it."""
        p = probabilities(scores_of(self.model, x_BCHW), temperature)
        region_HW = self.target.region_HW
        return p if region_HW is None else (p * region_HW).sum((2, 3)) / region_HW.sum()


@torch.no_grad()
def choose_target(
    model: nn.Module, x_CHW: torch.Tensor, index: int | None = None, region_HW: Mask | None = None
) -> Target:
    """The class to explain, and where.

    Without `index` a classifier is asked about the class that it chose; a segmentation model about the class
    that it gave to most pixels (inside `region_HW`, where there is one), the first class only if there is no
    other. Without `region_HW` the region is all pixels that were given this class.

    Raises:
        UsageError: no such class, a region of another size or without a pixel, a region for a classifier,
            or no pixel was given the class (then the error's facts hold `nowhere`).
        BadModel: as `scores_of`; or a score is not finite.
    """
    scores = scores_of(model, x_CHW[None])[0]
    if not scores.isfinite().all():
        raise BadModel(
            _("The model gives scores that are not finite for this image."),
            _("Check the image's values, and that the model was trained to its end."),
        )
    if index is not None and not 0 <= index < len(scores):
        raise UsageError(
            _("There is no class {index}: the model knows {count}.").format(index=index, count=len(scores)),
            _("Classes are numbered from 0 to {last}.").format(last=len(scores) - 1),
        )
    if scores.dim() == 1:
        if region_HW is not None:
            raise UsageError(
                _("The model scores whole images, so that no region of one can be asked about."),
                _("Leave the region out."),
            )
        return Target(int(scores.argmax()) if index is None else index)
    given_HW = scores.argmax(0) if len(scores) > 1 else (scores[0] <= 0).long()
    region = None if region_HW is None else _region(region_HW, x_CHW)
    if index is None:
        seen = given_HW if region is None else given_HW[region]
        counts = torch.bincount(seen.reshape(-1), minlength=len(scores))[: len(scores)]
        index = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
    if region is None:
        region = given_HW == index
        if not region.any():
            raise UsageError(
                _("The model gives class {index} to no pixel of this image.").format(index=index),
                _("Give a mask of the region to ask about, or another class."),
                nowhere=True,
            )
    return Target(index, region)


def _region(region_HW: Mask, x_CHW: torch.Tensor) -> torch.Tensor:
    check_mask(region_HW, *x_CHW.shape[1:])
    return torch.from_numpy(np.ascontiguousarray(region_HW)).to(x_CHW.device)


def check_mask(mask_HW: Mask, height: int, width: int) -> None:
    """Make sure that a mask belongs to an image of that size.

    Raises:
        UsageError: it has another size, or no pixel.
    """
    if mask_HW.shape != (height, width):
        found = "×".join(map(str, mask_HW.shape))
        raise UsageError(
            _("The mask has {found} px and the image {height}×{width}.").format(
                found=found, height=height, width=width
            ),
            _("Give a mask of the image's own size."),
        )
    if not mask_HW.any():
        raise UsageError(_("The mask is empty."), _("Give one with at least one pixel, or none at all."))
