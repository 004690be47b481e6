"""Example maps of an anomaly model: where it sees what is odd, and what of that is above its threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from caudal.core.errors import CaudalError
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.index import check_size
from caudal.data.mvtec import Judged
from caudal.data.readers import reader_for
from caudal.runs.anomalies import Thresholds
from caudal.runs.folder import RunFolder
from caudal.runs.loaded import Loaded
from caudal.runs.loading import load_model
from caudal.runs.normal_images import find_images
from caudal.runs.plan import TrainPlan
from caudal.runs.report import heat, paint
from caudal.runs.report.example import MOST, SIDE_PX, Example
from caudal.runs.tiling import candidates
from caudal.runs.work.normal_course import maps_of

_LARGEST_PX = 2048  # the side of the largest image that is drawn: all of it is scored
_LARGEST_TILE_PX = 384


def draw_odd_examples(folder: RunFolder, plan: TrainPlan) -> tuple[list[Example], str]:
    """Images that were judged, of each kind, or good ones where none was: spread evenly, not the best.

    And, where some or all are missing, why.
    """
    if not folder.model.is_dir():
        return [], _("No model was stored yet.")
    try:
        found, large = _drawable(plan)
        why = ""
        if large:
            why = _("{count} images are larger than {side} px and are not drawn (first: {path}).").format(
                count=len(large), side=_LARGEST_PX, path=large[0].path.name
            )
        return list(_examples(folder, plan, found)), why
    except CaudalError as error:
        return [], str(error)


def _examples(folder: RunFolder, plan: TrainPlan, found: Sequence[Judged]) -> Iterator[Example]:
    loaded = load_model(folder.path, plan.device, on_card=plan.memory.vram)
    thresholds = Thresholds.of(loaded, folder.path)
    odd, good = [one for one in found if one.anomalous], [one for one in found if not one.anomalous]
    for one in _spread(odd, MOST - 2 if good else MOST) + _spread(good, 2 if odd else MOST):
        yield _example(loaded, one, thresholds)


def _drawable(plan: TrainPlan) -> tuple[list[Judged], list[Judged]]:
    """Images that can be drawn as a whole, and those that are too large for that."""
    images = find_images(plan.spec.data.images)
    held_out = [images.good[k] for k in plan.held_out if k < len(images.good)]
    found = images.scored(held_out) or tuple(Judged(Path(str(path)), "", None) for path in held_out)
    drawable, large = list[Judged](), list[Judged]()
    for one in found:
        header = reader_for(one.path).header(one.path)
        (drawable if max(header.height, header.width) <= _LARGEST_PX else large).append(one)
    return drawable, large


def _spread(found: Sequence[Judged], most: int) -> list[Judged]:
    picks = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[k] for k in picks]


def _example(loaded: Loaded, one: Judged, thresholds: Thresholds) -> Example:
    multiple, context = int(loaded.model.multiple_px), int(loaded.model.receptive_field_px)  # type: ignore[arg-type]
    fitting = [t for t in candidates(context, multiple, exact=False) if t.side_px <= _LARGEST_TILE_PX]
    tiling = fitting[0] if fitting else candidates(context, multiple, exact=False)[-1]
    with reader_for(one.path).open(one.path) as source:
        header = source.header
        whole = Window(0, 0, header.height, header.width)
        pixels = source.read(whole)
    scores_HW = np.zeros((header.height, header.width), np.float32)
    for window, part_HW in maps_of(one.path, loaded.normalization, loaded.forward, tiling):
        scores_HW[window.slices] = np.nan_to_num(part_HW, nan=0.0)
    order = loaded.normalization.order[loaded.normalization.layout_for(header.band_names)]
    shown = [order[band] for band in paint.composite_bands(header.band_names, len(order))]
    picture = paint.stretched(pixels.x_HWC[:, :, shown], pixels.valid_HW)
    shrink = min(1.0, SIDE_PX / max(header.height, header.width))
    size = max(1, round(header.height * shrink)), max(1, round(header.width * shrink))
    small: paint.Picture = heat.resized(picture, size).astype(np.uint8)
    above_HW = heat.resized((scores_HW > thresholds.pixel).astype(np.float32), size) > 0.5
    layers = [
        (_("Heat map"), heat.heat_png(heat.levels(scores_HW, size))),
        (_("Above the threshold"), paint.layer_png(paint.class_layer(_rim(above_HW), 2))),
    ]
    if one.mask is not None:
        with reader_for(one.mask).open(one.mask) as mask:
            check_size(header, mask.header)
            truth_HW = np.any(mask.read(whole).x_HWC > 0, axis=2).astype(np.float32)
        rim_HW = _rim(heat.resized(truth_HW, size) > 0.5)
        layers.append((_("Truth"), paint.layer_png(paint.class_layer(rim_HW, 2))))
    name = f"{one.path.stem} ({one.kind})" if one.kind else one.path.stem
    return Example(
        name,
        Window(0, 0, *size),
        True,
        float(scores_HW.max()),
        paint.photo_png(small),
        tuple(layers),
        _("score"),
    )


def _rim(mask_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The edge of a mask, two pixels wide: what lies inside stays to be seen."""
    inner_HW = cv2.erode(mask_HW.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return (mask_HW & ~inner_HW).astype(np.uint8)
