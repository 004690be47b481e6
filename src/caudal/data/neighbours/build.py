"""Writes a folder of one graph from a list of edges, in memory that does not grow with the edges.

Edges are dealt into files by the node that they lead to, then each file is sorted by itself. All is written
into a folder beside the one asked for, which it becomes at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caudal.core.errors import BadValues, UsageError
from caudal.core.messages import _
from caudal.core.units import MIB, Bytes
from caudal.data.neighbours.one_graph import ENDS, FEATURES, NEIGHBOURS, NODES
from caudal.data.sample_files.base import Array, Ints
from caudal.data.unreadable import unreadable

Pairs = npt.NDArray[Any]

_PIECE = 1 << 18  # edges at a time
_EDGE_BYTES = 16
_HELD = 4  # copies of the edges of one file while they are sorted


def write_graph(
    out: Path,
    edges: Callable[[], Iterable[Pairs]] | Path,
    x: Path | Array,
    y: Array,
    *,
    split: Array | None = None,
    undirected: bool = True,
    work_bytes: int = Bytes(128 * MIB),
) -> None:
    """Write the folder `out`.

    `edges` is a `.npy` of shape (edges, 2), from and to, or gives pieces of such pairs each time that it is
    called. `x` (nodes, features) is an array or a `.npy`. `y` (nodes,) is what is learned of each node, below
    0 or NaN where it is unknown; `split` (nodes,) may name its part: 0 train, 1 val, 2 test. With
    `undirected` every edge leads both ways. It holds `work_bytes` and 16 bytes a node.

    Raises:
        BadValues: an edge names a node that is not there, or nothing is known of any node.
        UsageError: `out` is there already, or arrays count different nodes.
    """
    if out.exists():
        raise UsageError(_("{path} is there already.").format(path=out), _("Choose another name."))
    source = edges if callable(edges) else lambda: _pieces_of(edges)
    features = np.load(x, mmap_mode="r", allow_pickle=False) if isinstance(x, Path) else x
    nodes = len(features)
    if len(y) != nodes or (split is not None and len(split) != nodes):
        raise UsageError(
            _("x, y and split count different nodes: {counts}.").format(
                counts=", ".join(str(len(a)) for a in (features, y, split) if a is not None)
            ),
            _("Give one entry a node in each; -1 in y where it is unknown."),
        )
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        ends = _ends(source, nodes, undirected)
        np.save(part / ENDS, ends)
        _write_neighbours(part, source, ends, undirected, work_bytes)
        _write_features(part / FEATURES, features)
        _write_nodes(part / NODES, y, split)
        part.replace(out)
    except BaseException:  # Ctrl-C too leaves nothing half made; it is raised again
        shutil.rmtree(part, ignore_errors=True)
        raise


def _pieces_of(path: Path) -> Iterator[Pairs]:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if mapped.ndim != 2 or mapped.shape[1] != 2 or mapped.dtype.kind not in "iu":
        raise unreadable(path, _("it is no list of pairs of nodes"), _("Save an array of shape (edges, 2)."))
    for first in range(0, len(mapped), _PIECE):
        yield np.array(mapped[first : first + _PIECE])


def _both(pieces: Iterable[Pairs], undirected: bool) -> Iterator[tuple[Ints, Ints]]:
    for pairs in pieces:
        whole = np.asarray(pairs, np.int64).reshape(-1, 2)
        yield whole[:, 0], whole[:, 1]
        if undirected:
            other = whole[whole[:, 0] != whole[:, 1]]
            yield other[:, 1], other[:, 0]


def _ends(source: Callable[[], Iterable[Pairs]], nodes: int, undirected: bool) -> Ints:
    counts = np.zeros(nodes, np.int64)
    for sources, targets in _both(source(), undirected):
        if not len(targets):
            continue
        least, most = min(sources.min(), targets.min()), max(sources.max(), targets.max())
        if least < 0 or most >= nodes:
            raise BadValues(
                _("An edge names a node that is not there; there are {count} nodes.").format(count=nodes),
                _("Count nodes from 0, as the rows of x."),
            )
        into, times = np.unique(targets, return_counts=True)
        counts[into] += times
    return np.cumsum(counts, out=counts)


def _write_neighbours(
    part: Path, source: Callable[[], Iterable[Pairs]], ends: Ints, undirected: bool, work_bytes: int
) -> None:
    """Deal edges into files of as many as may be held, then sort each."""
    nodes, total = len(ends), int(ends[-1]) if len(ends) else 0
    most = max(_PIECE, work_bytes // (_HELD * _EDGE_BYTES))
    files = -(-total // most)
    bounds = np.searchsorted(ends, np.arange(1, files) * total // max(1, files), "left") + 1
    bounds = np.unique(np.append(bounds, nodes))
    dtype = np.dtype(np.int32 if nodes < 2**31 else np.int64)
    written = np.lib.format.open_memmap(part / NEIGHBOURS, "w+", dtype, (total,))
    names = [part / f"deal{k}" for k in range(len(bounds))]
    opened = [name.open("wb") for name in names]
    try:
        for sources, targets in _both(source(), undirected):
            file = np.searchsorted(bounds, targets, "right")
            order = np.argsort(file, kind="stable")
            cuts = np.searchsorted(file[order], np.arange(len(bounds) + 1))
            pairs = np.stack([targets[order], sources[order]], 1)
            for k in np.unique(file).tolist():
                opened[k].write(pairs[cuts[k] : cuts[k + 1]].tobytes())
    finally:
        for one in opened:
            one.close()
    at = 0
    for name in names:
        pairs = np.fromfile(name, np.int64).reshape(-1, 2)
        name.unlink()
        written[at : at + len(pairs)] = pairs[np.argsort(pairs[:, 0], kind="stable"), 1]
        at += len(pairs)
    written.flush()
    if at != total:
        raise UsageError(
            _("The edges changed while they were read."), _("Give the same edges at every call.")
        )


def _write_features(path: Path, features: Array) -> None:
    written = np.lib.format.open_memmap(path, "w+", features.dtype, features.shape)
    step = max(1, _PIECE * 8 // max(1, int(np.prod(features.shape[1:]))))
    for first in range(0, len(features), step):
        written[first : first + step] = features[first : first + step]
    written.flush()


def _write_nodes(path: Path, y: Array, split: Array | None) -> None:
    known = np.flatnonzero(np.isfinite(y) if y.dtype.kind == "f" else y >= 0).astype(np.int64)
    if not len(known):
        raise BadValues(_("Nothing is known of any node."), _("Give y a number that is not below 0."))
    if split is None:
        np.savez(path, node=known, y=y[known])
        return
    arrays: dict[str, Array] = {}
    for code, name in enumerate(("train", "val", "test")):
        of_part = known[split[known] == code]
        if len(of_part):
            arrays |= {f"node_{name}": of_part, f"y_{name}": y[of_part]}
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its stub takes a flag there
