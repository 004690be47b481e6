"""Example maps: held-out windows, what they hold in truth, and what the model of the run sees in them.

Small on purpose: at most six windows of 512 px, one at a time, in tiles that fit beside the libraries in
the run's own budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caudal.core.errors import CaudalError, DataError, DoesNotFit
from caudal.core.files import write_whole
from caudal.core.geometry import Window, round_up
from caudal.core.labels import IGNORE
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.chunk_reader import ChunkReader, OpenFiles
from caudal.data.index import Index, build
from caudal.data.pairs import find_pairs
from caudal.data.readers import reader_for
from caudal.data.readers.base import Pixels
from caudal.inference.scores import score_windows
from caudal.memory import cost
from caudal.runs.assemble import class_names
from caudal.runs.facts import SceneFacts
from caudal.runs.folder import RunFolder
from caudal.runs.loaded import Loaded
from caudal.runs.loading import load_model
from caudal.runs.plan import TrainPlan
from caudal.runs.report import paint
from caudal.runs.report.example import MOST, SIDE_PX, Example
from caudal.runs.scoring import ArraySource
from caudal.runs.tiling import Tiling, candidates
from caudal.tasks import TASKS

_LARGEST_BLOCK = Bytes(64 * MIB)  # an image whose pieces decode to more than this is not opened
_SEARCHED_BLOCK = Bytes(8 * MIB)  # past this the middle is shown, whatever is there
_LARGEST_TILE_PX = 384
_TILE_SHARE = 0.5  # of what the budget leaves beside the libraries


def draw_examples(folder: RunFolder, plan: TrainPlan) -> tuple[list[Example], str]:
    """Examples, also written to the folder `examples`; and, where there are none, why."""
    if not isinstance(plan.facts, SceneFacts):
        return [], _("Samples of this kind are not drawn.")
    if not folder.model.is_dir():
        return [], _("No model was stored yet.")
    try:
        return list(_examples(folder, plan)), ""
    except CaudalError as error:
        return [], str(error)


def _examples(folder: RunFolder, plan: TrainPlan) -> Iterator[Example]:
    loaded = load_model(folder.path, plan.device, on_card=plan.memory.vram)
    index = _index(plan)
    tiling = _tiling(loaded, plan)
    folder.examples.mkdir(exist_ok=True)
    files = OpenFiles(2)
    try:
        for number, i in enumerate(_chosen(index, plan.held_out), 1):
            yield _example(folder, loaded, index, files, tiling, i, number)
    finally:
        files.close()


def _index(plan: TrainPlan) -> Index:
    """The run's data; the plan says which of them were held out."""
    assert isinstance(plan.facts, SceneFacts)
    data, images = plan.spec.data, plan.facts.images
    index = build(find_pairs(data.images, data.masks))
    if len(index) != images:
        raise DataError(
            _("The data have changed: there were {then} images and there are {now}.").format(
                then=images, now=len(index)
            )
        )
    return index


def _tiling(loaded: Loaded, plan: TrainPlan) -> Tiling:
    """The largest tile, up to `_LARGEST_TILE_PX`, that fits into the run's budget with room to spare."""
    multiple, context = int(loaded.model.multiple_px), int(loaded.model.receptive_field_px)  # type: ignore[arg-type]
    room = (plan.memory.ram - plan.probe.imported) * _TILE_SHARE
    for tiling in candidates(context, multiple, exact=False):
        needed, _vram = cost.forward_bytes(loaded.forwards, tiling.side_px**2)
        if tiling.side_px <= _LARGEST_TILE_PX and needed <= room:
            return tiling
    raise DoesNotFit(
        _("The budget of {budget} leaves no room to draw examples.").format(budget=plan.memory.ram)
    )


def _chosen(index: Index, held_out: tuple[int, ...]) -> list[int]:
    """Images spread evenly over the held-out part, in the order of their names: not the best ones."""
    pixel_bytes = np.array([layout.dtype.itemsize * len(layout.order) for layout in index.layouts])
    decoded = index.block.prod(1) * pixel_bytes[index.layout]
    fit = [i for i in held_out if i < len(index) and decoded[i] <= _LARGEST_BLOCK]
    picks = np.linspace(0, len(fit) - 1, min(MOST, len(fit))).round().astype(int)
    return [fit[k] for k in picks]


def _example(
    folder: RunFolder,
    loaded: Loaded,
    index: Index,
    files: OpenFiles,
    tiling: Tiling,
    i: int,
    number: int,
) -> Example:
    assert loaded.classes is not None
    reader = ChunkReader(index, loaded.classes, loaded.normalization.fill(), files)
    window = _window(reader, i)
    pixels, predicted_HW = _predict(loaded, index, files, tiling, i, window)
    truth_HW = reader.classes_in(i, window)
    if pixels.valid_HW is not None:
        truth_HW[~pixels.valid_HW] = IGNORE
    scorer = TASKS.get(loaded.card.task)(class_names(loaded.classes)).scorer()
    scorer.add(0, predicted_HW, truth_HW)
    headline = scorer.result()[TASKS.get(loaded.card.task).headline]
    picture = paint.stretched(pixels.x_HWC[:, :, _shown(index, i)], pixels.valid_HW)
    layers = (
        paint.class_layer(truth_HW, loaded.classes.count),
        paint.class_layer(predicted_HW, loaded.classes.count),
        paint.difference_layer(truth_HW, predicted_HW),
    )
    name = index.image(i).stem
    strip = paint.strip_png(picture, layers)
    _write(folder.examples / f"{number}-{name}.png", strip)
    whole = window == Window(0, 0, int(index.height[i]), int(index.width[i]))
    names = (_("Truth"), _("Prediction"), _("Difference"))
    drawn = tuple((word, paint.layer_png(layer)) for word, layer in zip(names, layers, strict=True))
    return Example(name, window, whole, headline, paint.photo_png(picture), drawn)


def _write(path: Path, content: bytes) -> None:
    write_whole(path, lambda part: part.write_bytes(content))


def _shown(index: Index, i: int) -> list[int]:
    """The file's bands that are shown as red, green and blue."""
    order = index.layouts[int(index.layout[i])].order
    return [order[band] for band in paint.composite_bands(index.band_names, len(order))]


def _window(reader: ChunkReader, i: int) -> Window:
    """The window to show: the whole image, or of nine places in it the one with the most to find."""
    height, width = int(reader.index.height[i]), int(reader.index.width[i])
    high, wide = min(SIDE_PX, height), min(SIDE_PX, width)
    middle = Window((height - high) // 2, (width - wide) // 2, high, wide)
    if (high, wide) == (height, width) or reader.index.block[i].prod() > _SEARCHED_BLOCK:
        return middle
    places = [
        Window(row, col, high, wide)
        for row in (middle.row, 0, height - high)
        for col in (middle.col, 0, width - wide)
    ]

    def found_px(window: Window) -> int:
        truth_HW = reader.classes_in(i, window)
        return int(np.count_nonzero((truth_HW > 0) & (truth_HW != IGNORE)))

    return max(dict.fromkeys(places), key=found_px)


def _predict(
    loaded: Loaded, index: Index, files: OpenFiles, tiling: Tiling, i: int, window: Window
) -> tuple[Pixels, npt.NDArray[np.uint8]]:
    """The pixels of `window` and the class of each; read with what the model sees around it."""
    path = index.image(i)
    header = reader_for(path).header(path)
    around = round_up(tiling.context_px, tiling.multiple_px)
    top, left = (
        max(0, (at - around) // tiling.multiple_px * tiling.multiple_px) for at in (window.row, window.col)
    )
    seen = Window(top, left, window.row_end + around - top, window.col_end + around - left)
    seen = seen.clip(header.height, header.width)
    pixels = files.read(path, seen)
    cut = replace(header, height=seen.height, width=seen.width, block=(seen.height, seen.width))
    names = index.layouts[int(index.layout[i])].band_names
    forward = loaded.forward(loaded.normalization.layout_for(names))
    class_HW = np.full((seen.height, seen.width), IGNORE, np.uint8)
    for region in score_windows(ArraySource(cut, pixels), forward, tiling.grid(cut), loaded.card.outputs):
        if region.scores_CHW is None:
            continue
        part_HW = region.scores_CHW.argmax(0).astype(np.uint8)
        if region.valid_HW is not None:
            part_HW[~region.valid_HW] = IGNORE
        class_HW[region.window.slices] = part_HW
    here = window.within(seen)
    valid_HW = None if pixels.valid_HW is None else pixels.valid_HW[here]
    return Pixels(pixels.x_HWC[here], valid_HW), class_HW[here]
