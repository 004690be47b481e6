"""Sets of graphs in the text format of TU Dortmund: `NAME_A.txt` and its siblings in the same folder.

Line k of `NAME_graph_indicator.txt` names the graph of node k, a line of `NAME_A.txt` is an edge between two
nodes, and the files of labels and attributes have a line for each node, edge or graph; all count from 1.
Here nodes count from 0 within their graph. `x` and `edge_attr` are the attributes, followed by the labels
as one-hot columns from the least label to the greatest. `y` are the `graph_attributes` if there are any
(float32), else the `graph_labels` as classes 0, 1, … in the order of the labels. Edges are kept as they
are: none is turned round, doubled or dropped. Text is parsed in pieces of at most 1 MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, LocalFile
from caudal.data.sample_files.base import Array, Field, Ints, Part
from caudal.data.sample_files.number_table import PIECE_BYTES, SCRATCH_PER_PIECE_BYTE, NumberTable
from caudal.data.unreadable import unreadable

_SUFFIX = "_A.txt"
_INDICATOR = "graph_indicator"
_TABLES = (
    "A",
    "node_attributes",
    "node_labels",
    "edge_attributes",
    "edge_labels",
    "graph_attributes",
    "graph_labels",
)
_SCRATCH_PER_EDGE_BYTES = 72
_BLOCK_GRAPHS = 1000
_BLOCK_BYTES = 8 << 20
_MOST_LABELS = 1 << 16
_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


@dataclass(frozen=True)
class TuPart(Part):
    """A part that also knows where the lines of its blocks lie, and which labels there are.

    `offsets[k]` are the bytes at which the blocks start in table k (`_TABLES`), and at which the last one
    ends; zeros for a table that is not there. `node_labels` and `edge_labels` are the least and the greatest
    label of each column, (2, columns); `classes` are the graph labels, sorted.
    """

    offsets: Ints = field(default_factory=lambda: np.zeros((len(_TABLES), 1), np.int64))
    node_labels: Ints = field(default_factory=lambda: np.zeros((2, 0), np.int64))
    edge_labels: Ints = field(default_factory=lambda: np.zeros((2, 0), np.int64))
    classes: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


class TuReader:
    """Graphs in the text files of TU Dortmund; see the top of the file."""

    suffixes = (_SUFFIX,)

    def part(self, file: ByteFile, whole: bool) -> Part:
        """Parse all files once from end to end, and keep the counts; see `SampleReader.part`.

        Raises:
            UnreadableFile: a file is missing, broken, or does not go with the others; the line is named.
        """
        there = [name for name in _TABLES[1:] if _sibling(file, name).exists()]
        left_out = []
        if "graph_attributes" in there and "graph_labels" in there:
            there.remove("graph_labels")
            left_out.append(_("Not read: {names}.").format(names=_sibling(file, "graph_labels").name))
        with _tables(file, ["A", _INDICATOR, *there]) as tables:
            nodes = _nodes_of_graphs(tables[_INDICATOR])
            graphs = len(nodes)
            if whole and graphs > 1:
                why = _("it holds {count} graphs where one sample was expected").format(count=graphs)
                raise unreadable(Path(file.name), why, _("Let each graph of the set be a sample."))
            edges, in_order = _edges_of_graphs(tables["A"], nodes)
            x_columns, node_labels = _features(tables, "node", int(nodes.sum()))
            edge_columns, edge_labels = _features(tables, "edge", int(edges.sum()))
            y, classes = _target(tables, nodes)
            if not x_columns:
                # Without a column nothing could be learned, nor told how many nodes there are.
                left_out.append(_("There are no features of nodes: each node has the one feature 1."))
            fields = [Field("x", _FLOAT32, (None, x_columns or 1)), Field("edges", _INT64, (None, 2))]
            rows = {"x": nodes, "edges": edges}
            if edge_columns:
                fields.append(Field("edge_attr", _FLOAT32, (None, edge_columns)))
                rows["edge_attr"] = edges
            if y is not None:
                fields.append(y)
                rows |= {"y": nodes} if y.ragged else {}
            ends = _blocks(fields, rows) if in_order else np.array([graphs], np.int64)
            lines = {"A": edges, "node": nodes, "edge": edges, "graph": rows.get("y", np.ones_like(nodes))}
            offsets = np.zeros((len(_TABLES), len(ends) + 1), np.int64)
            for k, name in enumerate(_TABLES):
                if name in tables:
                    offsets[k, 1:] = tables[name].ends_of(np.cumsum(lines[name.split("_")[0]])[ends - 1])
        block_edges = int(np.diff(np.cumsum(edges)[ends - 1], prepend=0).max())
        return TuPart(
            fields=tuple(fields),
            ends=ends,
            rows=rows,
            scratch_bytes=min(PIECE_BYTES, int(np.diff(offsets).max())) * SCRATCH_PER_PIECE_BYTE
            + block_edges * (_SCRATCH_PER_EDGE_BYTES + edge_columns * _FLOAT32.itemsize),
            codec="text",
            left_out=tuple(left_out),
            offsets=offsets,
            node_labels=node_labels,
            edge_labels=edge_labels,
            classes=classes,
        )

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """Parse the lines of a block; see `SampleReader.read`.

        Raises:
            UnreadableFile: broken, or no longer what `part` saw.
        """
        assert isinstance(part, TuPart)
        spans = {name: part.offsets[k, block : block + 2] for k, name in enumerate(_TABLES)}
        with _tables(file, [name for k, name in enumerate(_TABLES) if part.offsets[k, -1]]) as tables:
            rows = {name: table.rows(*map(int, spans[name])) for name, table in tables.items()}
            try:
                _fill(rows.get("A", ()), into["edges"])
                _fill_features(rows, "node", part.node_labels, into["x"])
                if "edge_attr" in into:
                    _fill_features(rows, "edge", part.edge_labels, into["edge_attr"])
                if "y" in into:
                    _fill(rows.get("graph_attributes", rows.get("graph_labels", ())), into["y"])
                    if into["y"].dtype == _INT64:
                        _number_classes(part.classes, into["y"])
                _count_within_graphs(part, block, into)
            except _ChangedError:
                why = _("the set is not what it was when it was indexed")
                raise unreadable(Path(file.name), why, _("Index the data again.")) from None


class _ChangedError(ValueError):
    """The files hold something else than the part says."""


def _sibling(file: ByteFile, name: str) -> Path:
    """Where the table `name` of the set lies."""
    if "://" in file.name or not file.name.endswith(_SUFFIX):
        why = _("a set in this format is read from a folder, by its file that ends with {suffix}")
        raise unreadable(
            Path(file.name),
            why.format(suffix=_SUFFIX),
            _("Copy all files of the set into a folder on a mounted disk."),
        )
    return Path(f"{file.name.removesuffix(_SUFFIX)}_{name}.txt")


@contextmanager
def _tables(file: ByteFile, names: Iterable[str]) -> Iterator[dict[str, NumberTable]]:
    """The tables by name, open; `A` is `file` itself."""
    with ExitStack() as stack:
        tables = {}
        for name in names:
            table = file
            if name != "A":
                table = LocalFile(_sibling(file, name))
                stack.callback(table.close)
            tables[name] = NumberTable(table, whole=not name.endswith("attributes"))
        yield tables


def _nodes_of_graphs(indicator: NumberTable) -> Ints:
    """How many nodes each graph has."""
    hint = _("Give each node the number of its graph, from 1, and order the nodes by graph.")
    found, last, count = [], 1, 0
    for rows in indicator.rows():
        if rows.shape[1] > 1:
            raise indicator.refused(_("it has more than one number a line"), hint)
        graph = np.append(last, rows)
        if len(wrong := np.flatnonzero(graph[1:] < graph[:-1])):
            why = _("line {line} puts a node into graph {graph}, after one in graph {before}")
            if not count and not wrong[0]:
                why = _("line {line} puts a node into graph {graph}, but the first is graph 1")
            at = wrong[0]
            why = why.format(line=count + at + 1, graph=graph[at + 1], before=graph[at])
            raise indicator.refused(why, hint)
        found.append(np.unique(rows, return_counts=True))
        last, count = graph[-1], count + len(rows)
    if not count:
        raise indicator.refused(_("it holds no graph"), hint)
    if last > count:
        why = _("it counts {graphs} graphs, but has {nodes} nodes").format(graphs=last, nodes=count)
        raise indicator.refused(why, hint)
    nodes = np.zeros(last, np.int64)
    for graph, counts in found:
        nodes[graph - 1] += counts
    return nodes


def _edges_of_graphs(table: NumberTable, nodes: Ints) -> tuple[Ints, bool]:
    """How many edges each graph has, and whether they lie in the order of the graphs."""
    hint = _("Count nodes from 1 over all graphs, and let edges stay within a graph.")
    node_ends = np.cumsum(nodes)
    edges, in_order, last, line = np.zeros_like(nodes), True, 0, 1
    for rows in table.rows():
        if rows.shape[1] != 2:
            raise table.refused(_("a line does not have two numbers of nodes"), hint)
        if len(wrong := np.flatnonzero(((rows < 1) | (rows > node_ends[-1])).any(1))):
            start, stop = rows[wrong[0]]
            why = _("line {line} joins node {start} with node {stop}, but there are {nodes} nodes")
            why = why.format(line=line + wrong[0], start=start, stop=stop, nodes=node_ends[-1])
            raise table.refused(why, hint)
        graph = np.searchsorted(node_ends, rows - 1, side="right")
        if len(wrong := np.flatnonzero(graph[:, 0] != graph[:, 1])):
            start, stop = graph[wrong[0]] + 1
            why = _("line {line} joins a node of graph {start} with one of graph {stop}")
            raise table.refused(why.format(line=line + wrong[0], start=start, stop=stop), hint)
        graph = graph[:, 0]
        in_order &= graph[0] >= last and not (graph[1:] < graph[:-1]).any()
        lowest, last = graph.min(), graph[-1]
        counts = np.bincount(graph - lowest)
        edges[lowest : lowest + len(counts)] += counts
        line += len(rows)
    return edges, bool(in_order)


def _features(tables: Mapping[str, NumberTable], kind: str, count: int) -> tuple[int, Ints]:
    """Columns that the attributes and labels of nodes or edges make; the range of each label, (2, labels)."""
    attributes, labels = 0, np.zeros((2, 0), np.int64)
    if table := tables.get(f"{kind}_attributes"):
        lines = 0
        for rows in table.rows():
            _check_single(table, rows, lines + 1)
            attributes, lines = rows.shape[1], lines + len(rows)
        _check_lines(table, kind, lines, count)
    if table := tables.get(f"{kind}_labels"):
        lines = 0
        for rows in table.rows():
            both = np.stack([rows.min(0), rows.max(0)])
            labels = np.stack([np.minimum(labels, both)[0], np.maximum(labels, both)[1]]) if lines else both
            lines += len(rows)
        _check_lines(table, kind, lines, count)
    hot = sum(high - low + 1 for low, high in labels.T.tolist())
    if hot > _MOST_LABELS:
        why = _("its labels would make {count} columns, one a label from the least to the greatest")
        hint = _("Number the labels from 0 without gaps, or write them as attributes.")
        raise tables[f"{kind}_labels"].refused(why.format(count=hot), hint)
    return attributes + hot, labels


def _target(tables: Mapping[str, NumberTable], nodes: Ints) -> tuple[Field | None, Ints]:
    """The field `y`, and the labels behind its numbers if it is made of labels."""
    classes = np.zeros(0, np.int64)
    table = tables.get("graph_attributes", tables.get("graph_labels"))
    if table is None:
        return None, classes
    lines, columns, count = 0, 0, int(nodes.sum())
    for rows in table.rows():
        if table.whole:
            classes = np.union1d(classes, rows)
        else:
            _check_single(table, rows, lines + 1)
        columns, lines = rows.shape[1], lines + len(rows)
    if lines not in (len(nodes), count):
        why = _("it has {lines} lines for {graphs} graphs of {nodes} nodes")
        raise table.refused(
            why.format(lines=lines, graphs=len(nodes), nodes=count), _("Take all files from one set.")
        )
    if len(classes) > _MOST_LABELS:
        why = _("it has {count} different labels").format(count=len(classes))
        raise table.refused(why, _("Name the file “graph_attributes” if its numbers are no classes."))
    shape = (None,) * (lines != len(nodes)) + (columns,) * (columns > 1)
    categories = tuple(str(label) for label in classes.tolist())
    return Field("y", _INT64 if table.whole else _FLOAT32, shape, categories), classes


def _check_lines(table: NumberTable, kind: str, lines: int, count: int) -> None:
    if lines != count:
        nodes, edges = (
            _("it has {lines} lines for {count} nodes"),
            _("it has {lines} lines for {count} edges"),
        )
        why = (nodes if kind == "node" else edges).format(lines=lines, count=count)
        raise table.refused(why, _("Take all files from one set."))


def _check_single(table: NumberTable, rows: Array, line: int) -> None:
    """Refuse what float32 cannot hold, as it would become infinite."""
    big = np.abs(rows) > np.finfo(np.float32).max
    if len(wrong := np.flatnonzero((big & np.isfinite(rows)).any(1))):
        why = _("line {line} has a number beyond 3.4e38").format(line=line + wrong[0])
        raise table.refused(why, _("Scale the numbers, or take the column out."))


def _blocks(fields: Iterable[Field], rows: Mapping[str, Ints]) -> Ints:
    """The ends of blocks of so many graphs, and so many bytes, that one is worth a read and no burden."""
    costs = np.zeros_like(rows["x"])
    for spec in fields:
        costs += (rows[spec.name] if spec.ragged else 1) * spec.row_bytes
    total, ends, start = np.cumsum(costs), [], 0
    while start < len(costs):
        before = total[start - 1] if start else 0
        most = int(np.searchsorted(total, before + _BLOCK_BYTES, side="right"))
        start = min(max(most, start + 1), start + _BLOCK_GRAPHS)
        ends.append(start)
    return np.array(ends, np.int64)


def _fill(pieces: Iterable[Array], out: Array) -> None:
    """The rows one after the other into `out`, which they fill."""
    at = 0
    for rows in pieces:
        if at + len(rows) > len(out) or rows.shape[1] * len(out) != out.size:
            raise _ChangedError
        out[at : at + len(rows)] = rows.reshape(-1, *out.shape[1:])
        at += len(rows)
    if at != len(out):
        raise _ChangedError


def _fill_features(rows: Mapping[str, Iterable[Array]], kind: str, labels: Ints, out: Array) -> None:
    """Attributes and one-hot labels into the columns of `out`; 1 where there is neither."""
    low, high = labels
    first = np.cumsum(high - low + 1) - (high - low + 1)
    attributes = out.shape[1] - int((high - low + 1).sum())
    if f"{kind}_attributes" in rows:
        _fill(rows[f"{kind}_attributes"], out[:, :attributes])
    else:
        out[:, :attributes] = 1
    hot, at = out[:, attributes:], 0
    hot[...] = 0
    for label in rows.get(f"{kind}_labels", ()):
        if at + len(label) > len(out) or label.shape[1] != len(low) or ((label < low) | (label > high)).any():
            raise _ChangedError
        hot[np.arange(at, at + len(label))[:, None], label - low + first] = 1
        at += len(label)
    if len(low) and at != len(out):
        raise _ChangedError


def _number_classes(classes: Ints, y: Ints) -> None:
    """Labels become their places in `classes`, in place."""
    number = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    if not np.array_equal(classes[number], y):
        raise _ChangedError
    y[...] = number


def _count_within_graphs(part: Part, block: int, into: Mapping[str, Array]) -> None:
    """Sort the edges of a block by graph, if they are not, and count their nodes from 0 in each; in place."""
    first, last = (int(part.ends[block - 1]) if block else 0), int(part.ends[block])
    nodes, edges = part.rows["x"][first:last], into["edges"]
    ends = np.cumsum(nodes)
    edges -= int(part.rows["x"][:first].sum()) + 1
    if ((edges < 0) | (edges >= ends[-1])).any():
        raise _ChangedError
    graph = np.searchsorted(ends, edges[:, 0], side="right")
    if (graph[1:] < graph[:-1]).any():
        order = np.argsort(graph, kind="stable")
        graph = graph[order]
        for name in ("edges", "edge_attr"):
            if name in into:
                into[name][...] = into[name][order]
    edges -= (ends - nodes)[graph][:, None]
    within = (edges >= 0).all() and (edges < nodes[graph][:, None]).all()
    if not within or (np.bincount(graph, minlength=last - first) != part.rows["edges"][first:last]).any():
        raise _ChangedError
