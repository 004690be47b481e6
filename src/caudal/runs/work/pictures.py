"""Pictures with a class each: folders of classes, a CSV, or arrays of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from caudal.core.errors import BadValues, DataError
from caudal.core.messages import _
from caudal.core.seeds import generator
from caudal.data.batches import Batch
from caudal.data.glance import Glance, glance
from caudal.data.locations import list_files
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_files.chips import ChipReader
from caudal.data.sample_index import index_samples, labels_from_folders
from caudal.data.sample_set import SampleSet
from caudal.runs.samples import open_set
from caudal.runs.spec import RunSpec
from caudal.runs.work.kind import Inputs, SampleTask, Statistics
from caudal.runs.work.set_stream import scoring_batches
from caudal.runs.work.sought import Sought

if TYPE_CHECKING:
    import torch
    from torch import nn

    from caudal.training.step import Parts

_LOOKED_AT = 512  # pictures
_PIXELS = 2000  # of each
_STRAIGHT = 1e-4
_FEW_BANDS = 16
_SAYING_ONE = 50  # pictures
_PHOTOGRAPHS = (".jpg", ".jpeg", ".png")


class Pictures:
    """See `Kind`."""

    per_row_key: ClassVar[str] = "per_pixel"
    takes_groups: ClassVar[bool] = True
    fewest_to_choose: ClassVar[int] = 1

    def open_set(self, spec: RunSpec, tick: Callable[[int, int], None]) -> SampleSet:
        """See `Kind.open_set`: pictures are brought to one size, which no model can learn from then.

        Arrays keep the size that they have.
        """
        data, side, threads = spec.data.images[0], spec.data.image_px, spec.data.threads
        names = [name.lower() for name, _size in list_files(data, (*_PHOTOGRAPHS, *ChipReader.suffixes))]
        chips = sum(name.endswith(ChipReader.suffixes) for name in names)
        if chips and chips < len(names):
            raise DataError(
                _("{path} holds photographs and TIFF files.").format(path=data),
                _("Give a folder with pictures of one format."),
            )
        if chips:
            found = index_samples(data, "file", ChipReader(side), threads, tick, tolerant=True)
            return labels_from_folders(found) or found
        size = (side, side) if names else None
        return open_set(data, spec.data.samples, size, bool(names), threads, tick, tolerant=bool(names))

    def glance(self, samples: SampleSet, inputs: Inputs, members: Ints, threads: int) -> Glance | None:
        """See `Glancing.glance`."""
        return glance(samples, inputs.fields[0], members, threads, bands_last)

    def inputs(self, samples: SampleSet, besides: frozenset[str]) -> Inputs:
        """See `Kind.inputs`."""
        found = [
            f for f in samples.fields if f.name not in besides and not f.ragged and len(f.shape) in (2, 3)
        ]
        if len(found) != 1:
            raise DataError(
                _("{path} holds no pictures, or several fields of them.").format(path=samples.root),
                _("Give a folder of JPEG, PNG or TIFF files, in a folder for each class or with a CSV."),
            )
        height, width, bands = bands_last(np.empty((0, *found[0].row_shape))).shape[1:]
        return Inputs(fields=(found[0].name,), count=bands, shape=f"{height}×{width}×{bands}")

    def statistics(self, samples: SampleSet, inputs: Inputs, threads: int, seed: int) -> Statistics:
        """See `Kind.statistics`: from some hundred pictures."""
        from caudal.data.normalize import Normalization
        from caudal.data.normalize import Statistics as Gathered

        draw = generator(seed, "look")
        chosen = _some(samples, draw)
        gathered = Gathered(1, inputs.count)
        with scoring_batches(samples.only(chosen), 16, threads) as stream:
            for batch in stream:
                for x_HWC in bands_last(batch.numpy(inputs.fields[0])):
                    x_NC = x_HWC.reshape(-1, inputs.count)
                    some = draw.integers(0, len(x_NC), min(_PIXELS, len(x_NC)))
                    gathered.add(0, x_NC[some].astype(np.float32))
        centre, slope, offset, scale = (tuple(map(float, row)) for row in gathered.result(0))
        plain = Normalization.plain(inputs.count)
        made = plain.model_copy(
            update={"centre": (centre,), "slope": (slope,), "offset": (offset,), "scale": (scale,)}
        )
        return Statistics(values=made.model_dump(mode="json"))

    def statistics_of(self, model: nn.Module) -> Statistics | None:
        """See `Kind.statistics_of`: mean and deviation of values from 0 to 1."""
        known = getattr(model, "normalization", None)
        if known is None:
            return None
        from caudal.data.normalize import Normalization

        mean, deviation = known
        # Bent so little that it is a straight line.
        made = Normalization.plain(len(mean)).model_copy(
            update={
                "centre": (tuple(255 * m for m in mean),),
                "slope": ((_STRAIGHT,) * len(mean),),
                "offset": ((0.0,) * len(mean),),
                "scale": (tuple(1 / (_STRAIGHT * 255 * d) for d in deviation),),
            }
        )
        return Statistics(values=made.model_dump(mode="json"))

    def make_task(
        self, spec: RunSpec, sought: Sought, counts: Ints | None, chosen: Mapping[str, Any]
    ) -> SampleTask:
        """See `Kind.make_task`."""
        from caudal.tasks.classification.task import Classification, balanced_weights

        if sought.kind not in ("binary", "multiclass") or sought.per_row:
            raise BadValues(
                _("“{field}” is no class of a picture.").format(field=sought.field),
                _("Classification learns one of several classes; check data.target in the spec."),
            )
        weigh = spec.training.balance and counts is not None
        weights = balanced_weights(counts.tolist()) if weigh and counts is not None else None
        return Classification(
            sought.names,
            weights,
            temperature=float(chosen.get("temperature", 1.0)),
            resample_by=spec.split.group,
        )

    def choose(self, scorer: Any) -> dict[str, Any]:
        """See `Kind.choose`: the temperature that makes probabilities mean what they say.

        Of few pictures it would be chance: it is drawn towards 1, as if that many others had said so.
        """
        figures = scorer.result()
        temperature, count = figures["temperature"], figures["samples"]
        if temperature is None:
            return {}
        return {"temperature": float(temperature ** (count / (count + _SAYING_ONE)))}

    def prepare(
        self,
        spec: RunSpec,
        inputs: Inputs,
        sought: Sought,
        statistics: Statistics | None,
        device: str,
        training: bool,
        samples: SampleSet,
    ) -> Callable[[Batch, slice], tuple[Any, Any]]:
        """See `Kind.prepare`: `x_BCHW` float32 and class numbers (B,)."""
        import torch

        from caudal.core.labels import IGNORE
        from caudal.data.augment import augment
        from caudal.data.normalize import Normalization, normalize
        from caudal.runs.work.picture_input import by_picture

        made = (
            Normalization.model_validate(statistics.values)
            if statistics is not None
            else Normalization.plain(inputs.count)
        )
        tables, alone = made.tables(device), spec.data.normalize == "picture"
        (field,) = inputs.fields

        def prepare(batch: Batch, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
            x_BHWC = torch.from_numpy(bands_last(batch.numpy(field)[part])).to(device, non_blocking=True)
            if alone:
                x_BCHW = by_picture(x_BHWC)
            else:
                x_BCHW = normalize(x_BHWC, torch.zeros(len(x_BHWC), dtype=torch.int64, device=device), tables)
            y_B = torch.from_numpy(sought.truth(batch, np.arange(batch.size)[part]))
            if training:
                keys = batch.samples[part] + batch.epoch * len(samples)
                x_BCHW, _none = augment(x_BCHW, None, spec.augmentation, spec.seed, keys, IGNORE)
            return x_BCHW, y_B.to(device, non_blocking=True)

        return prepare

    def parts(self, samples: SampleSet, inputs: Inputs) -> Parts | None:
        """See `Kind.parts`: all are as large."""
        return None

    def places(self, samples: SampleSet, inputs: Inputs, numbers: Ints) -> Ints:
        """See `Kind.places`: a picture is one."""
        return np.ones(len(numbers), np.int64)

    def largest(self, samples: SampleSet, inputs: Inputs, count: int) -> Ints:
        """See `Kind.largest`: any."""
        members = samples.chosen.samples if samples.chosen else np.arange(len(samples))
        return members[:count].astype(np.int64)


def bands_last(x: Array) -> Array:
    """Pictures (N, H, W, C): as they are, of grey ones (N, H, W), or of ones with their few bands first."""
    if x.ndim == 3:
        return x[..., None]
    bands, height, width = x.shape[1:]
    first = bands <= _FEW_BANDS < min(height, width)
    return np.moveaxis(x, 1, -1) if first else x


def _some(samples: SampleSet, draw: np.random.Generator) -> Ints:
    members = samples.chosen.samples if samples.chosen else np.arange(len(samples))
    drawn = draw.permutation(len(members))[:_LOOKED_AT]
    chosen: Ints = np.sort(members[drawn]).astype(np.int64)
    return chosen
