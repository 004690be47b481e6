"""A set of samples from what a user names: a folder, a file, a pack; pictures with their sizes and labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from caudal.data import index_cache
from caudal.data.locations import is_remote
from caudal.data.paths import local_path
from caudal.data.sample_files.base import SampleReader
from caudal.data.sample_index import index_samples, labels_from_folders
from caudal.data.sample_set import SampleSet
from caudal.memory import allocator

_WORTH_KEEPING_SECONDS = 0.1
Arrangement = Literal["auto", "file", "rows"]


def open_set(
    data: str,
    arrangement: Arrangement = "auto",
    resize: tuple[int, int] | None = None,
    scaled: bool = False,
    threads: int = 2,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
    antialias: bool = True,
    tolerant: bool = False,
    labels: str | None = None,
) -> SampleSet:
    """Index what is there; see `caudal.stream` for the arguments, and `index_samples` for `tolerant`.

    `labels` is a table about the samples, which may lie among them.

    Raises:
        UnreadableFile: nothing to read, or a broken header.
        DataError: files that do not belong together.
    """
    reader: SampleReader | None = None
    if resize is not None:
        from caudal.data.sample_files.pictures import PictureReader

        reader = PictureReader(resize, scaled, antialias)
    if is_remote(data):
        return _labelled(index_samples(data, arrangement, reader, threads, tick, tolerant))
    table = str(local_path(labels)) if labels else ""
    root = local_path(data)
    kept = index_cache.cache_folder() / index_cache.key_of(
        root, arrangement, resize, scaled, antialias, table
    )
    found = index_cache.load(kept, root, reader)
    if found is None:
        began = time.monotonic()
        found = _labelled(index_samples(str(root), arrangement, reader, threads, tick, tolerant, table))
        if time.monotonic() - began > _WORTH_KEEPING_SECONDS and not found.unreadable:
            index_cache.store(kept, found, root)
            # From here on its columns are pages of files, which are not charged.
            found = index_cache.load(kept, root, reader) or found
            allocator.trim()
    return found


def _labelled(found: SampleSet) -> SampleSet:
    if any(one.name == "image" for one in found.fields) and not found.raw:
        return labels_from_folders(found) or found
    return found
