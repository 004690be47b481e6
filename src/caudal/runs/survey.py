"""What the pixels of a data set turned out to be: looked at once, stored with the run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from caudal.core.errors import BadValues, UsageError
from caudal.core.events import Events, Scanned
from caudal.core.messages import _
from caudal.data.chunk_reader import ChunkReader, OpenFiles
from caudal.data.classes import Classes, infer
from caudal.data.index import Index
from caudal.data.normalize import Normalization
from caudal.data.scan import Scan, scan
from caudal.data.split import Split
from caudal.runs.folder import RunFolder
from caudal.runs.plan import TrainPlan


@dataclass(frozen=True)
class Survey:
    """Normalization and classes of a run, and what its user should know of the data."""

    normalization: Normalization
    classes: Classes
    warnings: tuple[str, ...]

    def reader(self, index: Index) -> ChunkReader:
        """What reads chunks of the data; pixels that are not valid take the value that becomes 0."""
        return ChunkReader(index, self.classes, self.normalization.fill(), OpenFiles())


def survey(
    plan: TrainPlan,
    folder: RunFolder,
    again: bool,
    patch_px: int,
    index: Index,
    parts: Split,
    events: Events,
) -> Survey:
    """Look at the pixels, or read what was found when this run began.

    Raises:
        BadValues: an image without a valid pixel, a mask that is none, or one class alone.
        UnreadableFile: a file is broken.
        UsageError: the data are not those that the run began with.
    """
    fingerprint = _fingerprint(index)
    if again and folder.scan.is_file():
        stored = folder.read_json(folder.scan)
        if stored["fingerprint"] != fingerprint:
            raise _changed(folder)
        return Survey(
            Normalization.model_validate(stored["normalization"]),
            Classes.model_validate(stored["classes"]),
            tuple(stored["warnings"]),
        )
    threads = plan.spec.data.threads
    seen = scan(
        index, parts, patch_px, plan.spec.seed, threads, lambda done, total: events(Scanned(done, total))
    )
    found = _judge(plan, seen)
    folder.write_json(
        folder.scan,
        {
            "fingerprint": fingerprint,
            "normalization": found.normalization.model_dump(mode="json"),
            "classes": found.classes.model_dump(mode="json"),
            "warnings": list(found.warnings),
        },
    )
    return found


def look_at_pixels(
    plan: TrainPlan,
    folder: RunFolder,
    again: bool,
    patch_px: int,
    index: Index,
    parts: Split,
    events: Events,
) -> Normalization:
    """Normalization alone, for images without masks; see `survey`."""
    fingerprint = _fingerprint(index)
    if again and folder.scan.is_file():
        stored = folder.read_json(folder.scan)
        if stored["fingerprint"] != fingerprint:
            raise _changed(folder)
        return Normalization.model_validate(stored["normalization"])
    seen = scan(
        index,
        parts,
        patch_px,
        plan.spec.seed,
        plan.spec.data.threads,
        lambda done, total: events(Scanned(done, total)),
    )
    found = seen.normalization
    folder.write_json(
        folder.scan, {"fingerprint": fingerprint, "normalization": found.model_dump(mode="json")}
    )
    return found


def _changed(folder: RunFolder) -> UsageError:
    return UsageError(
        _("The data have changed since the run in {path} began.").format(path=folder.path),
        _("Bring them back, or start a new run in another folder."),
    )


def _judge(plan: TrainPlan, seen: Scan) -> Survey:
    data, note = plan.spec.data, ""
    if data.classes:
        classes = Classes(values=data.classes, ignored=data.ignored)
    else:
        classes, note = infer(set(seen.train_values) | set(seen.held_out_values))
    learned = [value for value in classes.values if seen.train_values.get(value)]
    if len(learned) < 2:
        raise BadValues(
            _("The training masks hold one class alone: {values}.").format(
                values=", ".join(map(str, learned)) or "-"
            ),
            _("There is nothing to tell apart; check the masks, or set split.fold to another part."),
        )
    warnings = [note] if note else []
    for value in classes.values:
        for where, count in ((_("training"), seen.train_values), (_("held-out"), seen.held_out_values)):
            if not count.get(value):
                warnings.append(
                    _("Class {value} is in no mask of the {part} part.").format(value=value, part=where)
                )
    return Survey(seen.normalization, classes, tuple(warnings))


def _fingerprint(index: Index) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for column in (index.images.blob, index.masks.blob, index.height, index.width, index.bytes):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
