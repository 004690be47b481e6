"""Rasters and pictures with masks, from which patches are cut: opened by headers alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from caudal.core.errors import UsageError
from caudal.core.events import Events
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.chunks import Cutter
from caudal.data.index import Index, build
from caudal.data.pairs import find_pairs
from caudal.data.split import Split, split
from caudal.data.stream import AHEAD, StreamSize
from caudal.runs.facts import SceneFacts
from caudal.runs.folder import RunFolder
from caudal.runs.pieces import choose_pieces
from caudal.runs.plan import TrainPlan
from caudal.runs.spec import RunSpec
from caudal.runs.work.base import Course, Rehearsal, Tick

_INDEX_BYTES = 64  # an image
_OPEN_RASTERS = MIB // 2  # headers and tables of those that are read: so much of 64 images and masks


class Scenes:
    """See `Work`."""

    def __init__(self, spec: RunSpec, index: Index, parts: Split) -> None:
        self.spec, self.index, self.parts = spec, index, parts
        self.patch_px = spec.data.patch_px or choose_patch(index)
        self.cutter = Cutter(index, parts.train, self.patch_px, spec.seed, spec.data.density)
        self.facts = scene_facts(index, parts, self.cutter)
        self.warnings = (*index.warnings, *parts.warnings)

    @classmethod
    def open(cls, spec: RunSpec, tick: Tick = lambda _done, _total: None) -> Scenes:
        """See `Work.open`."""
        pairs = find_pairs(spec.data.images, spec.data.masks)
        index = build(pairs, tick)
        if spec.split.fold >= spec.split.folds:
            raise UsageError(
                _("split.fold is {fold} and there are {folds} folds.").format(
                    fold=spec.split.fold, folds=spec.split.folds
                ),
                _("Folds are counted from 0."),
            )
        return cls(spec, index, split(index, spec.seed, spec.split.folds, spec.split.fold, spec.split.group))

    @classmethod
    def rehearse(cls, spec: RunSpec, told: dict[str, Any]) -> Rehearsal:
        """See `Work.rehearse`."""
        from caudal.runs.work.scene_rehearsal import SceneRehearsal

        return SceneRehearsal(spec, **told)

    def tell(self) -> dict[str, Any]:
        """See `Work.tell`."""
        return {
            "bands": self.index.bands,
            "dtype": str(self.index.dtype),
            "patch_px": self.patch_px,
            "pieces": choose_pieces(self.index, self.parts, self.cutter).model_dump(mode="json"),
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
        return self.spec.training.steps

    @property
    def index_bytes(self) -> int:
        """See `Work.index_bytes`."""
        return _OPEN_RASTERS + _INDEX_BYTES * len(self.index)

    @property
    def members(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See `Work.members`."""
        return self.parts.train, self.parts.held_out

    def start(self, plan: TrainPlan, folder: RunFolder, again: bool, events: Events) -> Course:
        """See `Work.start`."""
        from caudal.runs.survey import survey
        from caudal.runs.work.scene_course import SceneCourse

        facts = survey(plan, folder, again, self.patch_px, self.index, self.parts, events)
        return SceneCourse(self.index, self.parts, self.cutter, plan, facts)


def choose_patch(index: Index) -> int:
    """A patch that most images hold about twice a side, between 64 and 128 pixels, a multiple of 32."""
    side = float(np.median(np.minimum(index.height, index.width)))
    return int(min(128, max(64, side / 1.75 // 32 * 32)))


def scene_facts(index: Index, parts: Split, cutter: Cutter) -> SceneFacts:
    """What headers say of images and of what is cut from them."""
    areas = index.height * index.width
    small, large = int(np.argmin(areas)), int(np.argmax(areas))
    return SceneFacts(
        images=len(index),
        held_out=len(parts.held_out),
        bands=index.bands,
        dtype=", ".join(sorted({str(layout.dtype) for layout in index.layouts})),
        band_names=index.band_names,
        smallest_px=(int(index.height[small]), int(index.width[small])),
        largest_px=(int(index.height[large]), int(index.width[large])),
        decoded=Bytes(index.decoded_bytes),
        on_disk=Bytes(int(index.bytes.sum())),
        samples_per_epoch=cutter.samples,
        block_px=(int(index.block[large][0]), int(index.block[large][1])),
        patch_px=cutter.patch_px,
    )
