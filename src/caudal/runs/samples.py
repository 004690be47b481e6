"""A set of samples from what a user names: a folder, a file, a pack; pictures with their sizes and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from caudal.data.sample_files.base import SampleReader
from caudal.data.sample_index import index_samples, labels_from_folders
from caudal.data.sample_set import SampleSet

Arrangement = Literal["auto", "file", "rows"]


def open_set(
    data: str,
    arrangement: Arrangement = "auto",
    resize: tuple[int, int] | None = None,
    scaled: bool = False,
    threads: int = 2,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
) -> SampleSet:
    """Index what is there; see `caudal.stream` for the arguments.

    Raises:
        UnreadableFile: nothing to read, or a broken header.
        DataError: files that do not belong together.
    """
    reader: SampleReader | None = None
    if resize is not None:
        from caudal.data.sample_files.pictures import PictureReader

        reader = PictureReader(resize, scaled)
    found = index_samples(data, arrangement, reader, threads, tick)
    if any(one.name == "image" for one in found.fields) and not found.raw:
        return labels_from_folders(found) or found
    return found
