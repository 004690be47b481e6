"""A folder with one graph, opened: its arrays are mapped, and take memory only as pages of files do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import LocalFile
from caudal.data.sample_files.base import Array, Ints
from caudal.data.unreadable import unreadable

ENDS, NEIGHBOURS, FEATURES, NODES = "ends.npy", "neighbours.npy", "x.npy", "nodes.npz"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class OneGraph:
    """Edges lead into node n from `neighbours_E[ends_N[n - 1]:ends_N[n]]`; `x_NF` are its features."""

    path: Path
    ends_N: Ints
    neighbours_E: Array
    x_NF: Array

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self.ends_N)

    @property
    def edges(self) -> int:
        """How many edges there are, each direction counted."""
        return len(self.neighbours_E)

    @property
    def features(self) -> int:
        """Features of a node."""
        return int(np.prod(self.x_NF.shape[1:], dtype=np.int64))

    def starts_of(self, nodes: Ints) -> tuple[Ints, Ints]:
        """Where the neighbours of some nodes begin, and how many they have."""
        ends = self.ends_N[nodes]
        starts = np.where(nodes > 0, self.ends_N[np.maximum(nodes - 1, 0)], 0)
        return starts, ends - starts


def is_one_graph(folder: Path) -> bool:
    """Whether a folder is meant to hold one graph."""
    return folder.is_dir() and (folder / NEIGHBOURS).is_file() and (folder / NODES).is_file()


def open_graph(folder: Path) -> OneGraph:
    """The graph of a folder, after seeing that its arrays belong together; values are not read but ends.

    Raises:
        UnreadableFile: an array is missing, broken or truncated, or they do not belong together.
    """
    ends, neighbours, x = (_mapped(folder / name) for name in (ENDS, NEIGHBOURS, FEATURES))
    whole = ends.ndim == neighbours.ndim == 1 and ends.dtype.kind in "iu" and neighbours.dtype.kind in "iu"
    if not whole or len(ends) != len(x) or x.ndim < 1 or x.dtype.kind not in "biuf":
        raise unreadable(folder, _("its arrays are not those of one graph"), _again())
    last = 0
    for start in range(0, len(ends), _BLOCK):
        part = ends[start : start + _BLOCK]
        if int(part[0]) < last or (np.diff(part) < 0).any():
            raise unreadable(folder / ENDS, _("its numbers do not rise"), _again())
        last = int(part[-1])
    if last != len(neighbours):
        raise unreadable(folder / ENDS, _("its numbers do not end with the number of edges"), _again())
    return OneGraph(folder, ends, neighbours, x)


def _mapped(path: Path) -> Array:
    LocalFile(path).close()  # it says in a sentence why it cannot be had
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        why = str(error).splitlines()[0] if str(error) else _("it is broken")
        raise unreadable(path, why.rstrip("."), _again()) from None
    return array.view(np.ndarray)  # a mapped array looks at its file at every step


def _again() -> str:
    return _("Write the folder again, with caudal.data.neighbours.build.write_graph.")
