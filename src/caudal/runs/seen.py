"""Pictures as a trained model sees them, one at a time, with what people see of them: for explanations."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from caudal.core.errors import UsageError
from caudal.core.geometry import Window
from caudal.core.messages import _
from caudal.data.locations import located
from caudal.data.normalize import normalize
from caudal.data.pairs import images_in
from caudal.data.readers import reader_for
from caudal.data.readers.base import Header
from caudal.data.sample_values import field_of
from caudal.data.url import Location
from caudal.runs.loaded import Loaded
from caudal.runs.loading import is_of_samples, load_model
from caudal.runs.report import paint

SIDES_PX = (128, 256, 512)
"""Of the middle of a scene."""


@dataclass(frozen=True)
class Seen:
    """`x_CHW` float32 as the model takes it, `picture` (H, W, 3) uint8; `truth` names the class if known.

    `window` is the part of the image that is seen, in its own pixels, and `header` that of its file; `None`:
    all of it is seen, at another size.
    """

    name: str
    x_CHW: torch.Tensor
    picture: npt.NDArray[np.uint8]
    truth: str | None = None
    window: Window | None = None
    header: Header | None = None


@dataclass(frozen=True)
class Pictures:
    """`count` of them; the largest is of `shape` (bands, rows, columns) as the model takes it.

    `each` gives them one by one. What it takes is how much of a scene is seen at the most: the side of its
    middle in pixels.
    """

    count: int
    shape: tuple[int, int, int]
    each: Callable[[int], Iterator[Seen]]


@dataclass(frozen=True)
class Eyes:
    """A model in evaluation mode, its classes' names, and the temperature of its scores if it has one."""

    model: nn.Module
    class_names: tuple[str, ...]
    temperature: float | None
    device: str
    source: Any

    def look(self, data: str, labels: str | None, most: int, tick: Callable[[int, int], None]) -> Pictures:
        """The first `most` pictures of a folder, or the one that is named.

        `tick` hears how far looking for them is.

        Raises:
            DataError: they cannot be read, or are not what the model was trained on.
        """
        if isinstance(self.source, Loaded):
            return _scenes(self.source, data, most)
        return _samples(self.source, data, labels, most, tick)

    def warnings(self) -> list[str]:
        """What must be said beside what was seen."""
        return list(self.source.warnings)


def open_eyes(path: Path, device: str) -> Eyes:
    """The model of a run's or a model's folder.

    Raises:
        BadModel, DeviceMissing: as loading a model.
        UsageError: its task is not about pictures.
    """
    if not is_of_samples(path):
        loaded = load_model(path, device)
        if loaded.card.task != "segmentation":
            raise UsageError(
                _(
                    "A model of the task {task} knows no classes, so there is nothing to speak for one."
                ).format(task=loaded.card.task),
                _("Its maps say where: draw them with `caudal predict`."),
            )
        names = loaded.classes.values if loaded.classes else range(loaded.card.outputs)
        return Eyes(loaded.model, tuple(map(str, names)), None, loaded.device, loaded)
    from caudal.runs.work.set_model import SetModel

    model = SetModel.load(path, device)
    if model.card.task != "classification":
        raise UsageError(
            _("Models of the task {task} do not see pictures, so there is no map to draw.").format(
                task=model.card.task
            ),
            _("Explain a model of the task classification or segmentation."),
        )
    assert model.card.inputs is not None
    temperature = model.card.inputs["chosen"].get("temperature")
    return Eyes(model.model.eval(), model.sought.names, temperature, model.device, model)


def _scenes(loaded: Loaded, data: str, most: int) -> Pictures:
    paths = images_in(located(data))[:most]
    sizes = [(header.height, header.width) for header in (reader_for(path).header(path) for path in paths)]
    high, wide = (min(SIDES_PX[-1], max(sides)) for sides in zip(*sizes, strict=True))
    return Pictures(len(paths), (loaded.card.bands, high, wide), partial(_each_scene, loaded, paths))


def _each_scene(loaded: Loaded, paths: Sequence[Location], side_px: int) -> Iterator[Seen]:
    for path in paths:
        reader = reader_for(path)
        header = reader.header(path)
        loaded.check_bands(header.bands, path)
        high, wide = min(side_px, header.height), min(side_px, header.width)
        window = Window((header.height - high) // 2, (header.width - wide) // 2, high, wide)
        with reader.open(path) as source:
            pixels = source.read(window)
        layout = loaded.normalization.layout_for(header.band_names)
        order = list(loaded.normalization.order[layout])
        x_BHWC = torch.from_numpy(np.ascontiguousarray(pixels.x_HWC[:, :, order]))[None].to(loaded.device)
        tables = loaded.normalization.tables(loaded.device)
        x_CHW = normalize(x_BHWC, torch.tensor([layout], device=loaded.device), tables)[0]
        if pixels.valid_HW is not None:
            valid = torch.from_numpy(pixels.valid_HW).to(loaded.device)
            x_CHW = torch.where(valid, x_CHW, 0.0)
        shown = [order[band] for band in paint.composite_bands(header.band_names, len(order))]
        yield Seen(
            path.stem,
            x_CHW,
            paint.stretched(pixels.x_HWC[:, :, shown], pixels.valid_HW),
            None,
            window,
            header,
        )


def _samples(
    model: Any, data: str, labels: str | None, most: int, tick: Callable[[int, int], None]
) -> Pictures:
    opened, spec = model.open(data, labels, tick)
    members = opened.members[:most]
    each = partial(_each_sample, model, opened, spec, members)
    with closing(each()) as seen:
        bands, high, wide = next(seen).x_CHW.shape
    return Pictures(len(members), (bands, high, wide), lambda _side_px: each())


def _each_sample(model: Any, opened: Any, spec: Any, members: Any) -> Generator[Seen]:
    from caudal.runs.work.pictures import bands_last
    from caudal.runs.work.set_stream import scoring_batches
    from caudal.runs.work.told_classes import Strangers

    prepare = model.prepare(opened, spec)
    strangers = Strangers(model.told, field_of(opened.samples, model.told.field))
    (field,) = model.inputs.fields
    with scoring_batches(opened.samples.only(members), 1, spec.data.threads) as stream:
        for batch in stream:
            strangers.look(batch)
            x_BCHW, truth_B = prepare(batch, slice(0, 1))
            number = int(batch.samples[0])
            picture = np.array(bands_last(batch.numpy(field))[0])
            if picture.dtype != np.uint8 or picture.shape[2] != 3:
                bands = paint.composite_bands((), picture.shape[2])
                picture = paint.stretched(picture[:, :, list(bands)], None)
            truth = int(truth_B[0])
            file, _within = opened.samples.where(number)
            yield Seen(
                Path(opened.samples.columns.names[file]).stem,
                x_BCHW[0],
                picture,
                model.sought.names[truth] if truth >= 0 else None,
            )
    model.warnings.extend(strangers.warnings())
