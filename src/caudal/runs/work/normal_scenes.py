"""Images of what is normal, without masks: learned from good ones alone, by patches of any raster."""

from __future__ import annotations

from typing import Any

import numpy as np

from caudal.core.errors import UsageError
from caudal.core.events import Events
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.chunks import Cutter
from caudal.data.copies import copies_between
from caudal.data.index import Index, build
from caudal.data.judged_headers import check_judged
from caudal.data.split import Split, split
from caudal.data.stream import AHEAD, StreamSize
from caudal.runs.facts import SceneFacts
from caudal.runs.folder import RunFolder
from caudal.runs.normal_images import copies_warning, find_images, says_nothing
from caudal.runs.pieces import choose_pieces
from caudal.runs.plan import TrainPlan
from caudal.runs.spec import RunSpec
from caudal.runs.work.base import Course, Rehearsal, Tick
from caudal.runs.work.normal_choice import chosen_model
from caudal.runs.work.normal_data import NormalData
from caudal.runs.work.scenes import scene_facts

_INDEX_BYTES = 64  # an image
_OPEN_RASTERS = MIB // 2  # headers and tables of those that are read: so much of 64 images and masks
ONE_PASS = ("patch_memory", "rx")
"""Models that learn without steps; told by name, because a plan is made without them."""


class NormalScenes:
    """See `Work`."""

    def __init__(self, spec: RunSpec, data: NormalData) -> None:
        pixels = sum(int(data.index.height[i] * data.index.width[i]) for i in data.parts.train)
        self.spec, why = chosen_model(spec, data.index.bands, pixels)
        self.data = data
        self.patch_px = spec.data.patch_px or choose_patch(data.index)
        self.cutter = Cutter(data.index, data.parts.train, self.patch_px, spec.seed, spec.data.density)
        self.facts: SceneFacts = scene_facts(data.index, data.parts, self.cutter)
        self.warnings = (*data.index.warnings, *data.parts.warnings, *data.warnings, *why)

    @classmethod
    def open(cls, spec: RunSpec, tick: Tick = lambda _done, _total: None) -> NormalScenes:
        """See `Work.open`."""
        _refuse_keys(spec)
        found = find_images(spec.data.images)
        index = build([(path, None) for path in found.good], tick)
        parts = _split(spec, index)
        train = [index.image(i) for i in parts.train]
        judged = found.scored(index.image(i) for i in parts.held_out)
        odd = check_judged(judged, index.bands)
        copies = copies_between(train, [one.path for one in judged]) if len(index) > 1 else {}
        said = (*found.warnings, *odd, *copies_warning(train, judged, copies))
        return cls(spec, NormalData(index, parts, judged, said, bool(found.shared)))

    @classmethod
    def rehearse(cls, spec: RunSpec, told: dict[str, Any]) -> Rehearsal:
        """See `Work.rehearse`."""
        from caudal.runs.work.normal_rehearsal import NormalRehearsal

        return NormalRehearsal(spec, **told)

    def tell(self) -> dict[str, Any]:
        """See `Work.tell`."""
        pieces = choose_pieces(self.data.index, self.data.parts, self.cutter)
        return {
            "bands": self.data.index.bands,
            "dtype": str(self.data.index.dtype),
            "patch_px": self.patch_px,
            "pieces": pieces.model_dump(mode="json"),
            "labelled": any(one.anomalous for one in self.data.judged),
        }

    @property
    def most_blocks(self) -> int:
        """See `Work.most_blocks`."""
        return min(self.spec.data.open_chunks, max(2, len(self.cutter.most_patches)))

    @property
    def most_ahead(self) -> int:
        """See `Work.most_ahead`."""
        return AHEAD

    def arena_bytes(self, open_blocks: int, ahead: int) -> Bytes:
        """See `Work.arena_bytes`."""
        return StreamSize.of(self.cutter, self.spec.training.batch, open_blocks, ahead).arena_bytes

    @property
    def steps(self) -> int:
        """See `Work.steps`."""
        if self.spec.model.name in ONE_PASS:
            return max(1, self.cutter.samples // self.spec.training.batch)
        return self.spec.training.steps

    @property
    def index_bytes(self) -> int:
        """See `Work.index_bytes`."""
        return _OPEN_RASTERS + _INDEX_BYTES * len(self.data.index)

    @property
    def members(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See `Work.members`."""
        return self.data.parts.train, self.data.parts.held_out

    def start(self, plan: TrainPlan, folder: RunFolder, again: bool, events: Events) -> Course:
        """See `Work.start`."""
        from caudal.runs.survey import look_at_pixels
        from caudal.runs.work.normal_course import NormalCourse

        data = self.data
        normalization = look_at_pixels(plan, folder, again, self.patch_px, data.index, data.parts, events)
        return NormalCourse(data, self.cutter, plan, self.spec, normalization)


def choose_patch(index: Index) -> int:
    """As much of most images as fits into 256 px, a multiple of 32: what surrounds a pixel is learned."""
    side = float(np.median(np.minimum(index.height, index.width)))
    return int(min(256, max(32, side // 32 * 32)))


def _split(spec: RunSpec, index: Index) -> Split:
    """Good images to learn from, and others to set the threshold on."""
    if spec.split.fold >= spec.split.folds:
        raise UsageError(
            _("split.fold is {fold} and there are {folds} folds.").format(
                fold=spec.split.fold, folds=spec.split.folds
            ),
            _("Folds are counted from 0."),
        )
    if len(index) == 1:
        note = _("There is one image: the threshold is set on what was learned from, and may be too low.")
        return Split((0,), (0,), (note,))
    folds = min(spec.split.folds, len(index))
    return split(index, spec.seed, folds, min(spec.split.fold, folds - 1), spec.split.group)


_OF_OTHERS = ("masks", "labels", "target", "positive", "classes", "ignored")


def _refuse_keys(spec: RunSpec) -> None:
    """Refuse keys of the data that say nothing here, lest somebody think they did.

    Raises:
        UsageError: one is set.
    """
    for key in _OF_OTHERS:
        if getattr(spec.data, key):
            raise says_nothing(f"data.{key}")
