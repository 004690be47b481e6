"""Graphs as lines of JSON, one graph a line (`.jsonl`, `.ndjson`); it reads no other records.

A line is `{"x": [[…], …], "edges": [[from, to], …], "y": 0, "split": "train", "edge_attr": [[…], …]}`:
`x` has a row for each node, `edges` a row for each edge, with node numbers from 0. What follows the two
node numbers in a row of `edges` are attributes of that edge. `y`, `split` and `edge_attr` are optional, but
every line has them or none. `y` is a number or a list of numbers for the graph, or a list with one number a
node; it is int64 if all are written without a decimal point, else float32. Edges are kept as they are: none
is turned round, doubled or dropped. However large the file, one line at a time is parsed.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.errors import UnreadableFile
from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject, read_bytes
from caudal.data.sample_files.base import Array, Field, Ints, Part
from caudal.data.unreadable import unreadable

_BLOCK_BYTES = 256 << 10
_LINE_BYTES = 32 << 20
# Short rows are the worst that JSON can do: the 4 bytes of text `[1],` become a list of about 100, and a
# list of rows that grows is there twice.
_PARSED_BYTES_PER_BYTE = 36
_SPLITS = ("train", "val", "test")
_SPLIT_NUMBERS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}
_KEYS = ("x", "edges", "edge_attr", "y", "split")
_KEYS_NAMED = 8


@dataclass(frozen=True)
class GraphLinesPart(Part):
    """A part that also knows where its blocks lie.

    `offsets` are the bytes at which the blocks start, and at last the size of the file; `lines` is the
    number (from 1) of the first line of each block.
    """

    offsets: Ints = field(default_factory=lambda: np.zeros(1, np.int64))
    lines: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class _Graph:
    """A parsed line: x (N, F) float32, edges (E, 2) int64, edge_attr (E, D) float32, D = 0 if it has none.

    `y` is () or (K,), int64 or float32. Where there is no row, the number of columns says nothing.
    """

    x: Array
    edges: Ints
    edge_attr: Array
    y: Array | None
    split: int | None
    other_keys: tuple[str, ...]


class _BadLineError(ValueError):
    """What is wrong with a line, as a clause; the caller knows the line's number."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint

    def at(self, file: ByteFile, number: int) -> UnreadableFile:
        """The error for the user."""
        why = _("in line {number}, {why}").format(number=number, why=self)
        return unreadable(Path(file.name), why, self.hint or _("Correct the line, or take it out."))


class GraphLinesReader:
    """Graphs in lines of JSON; see the top of the file."""

    suffixes = (".jsonl", ".ndjson")

    def part(self, file: ByteFile, whole: bool) -> Part:
        """Parse the file once from end to end, and keep the counts; see `SampleReader.part`.

        Raises:
            UnreadableFile: not such a file, naming the line; or more than one graph where `whole` says one.
        """
        seen = _Seen()
        starts, lines, first, longest = array("q"), array("q"), array("q"), 0
        for number, offset, line in _lines(file):
            if not starts or offset + len(line) - starts[-1] > _BLOCK_BYTES:
                starts.append(offset)
                lines.append(number)
                first.append(seen.samples)
            longest = max(longest, len(line))
            try:
                seen.add(_parse(line), number)
            except _BadLineError as bad:
                raise bad.at(file, number) from None
        if not seen.samples:
            raise unreadable(Path(file.name), _("it holds no graph"))
        if whole and seen.samples > 1:
            why = _("it holds {count} graphs where one sample was expected").format(count=seen.samples)
            raise unreadable(Path(file.name), why, _("Let each graph of the file be a sample."))
        fields, rows = seen.fields(file)
        offsets = np.append(_ints(starts), file.size_bytes)
        return GraphLinesPart(
            fields=fields,
            ends=np.append(_ints(first)[1:], seen.samples),
            rows=rows,
            scratch_bytes=2 * int(np.diff(offsets).max()) + longest * (1 + _PARSED_BYTES_PER_BYTE),
            codec="json",
            left_out=seen.left_out(),
            offsets=offsets,
            lines=_ints(lines),
        )

    def read(self, file: ByteFile, part: Part, block: int, into: Mapping[str, Array]) -> None:
        """Parse the lines of a block; see `SampleReader.read`.

        Raises:
            UnreadableFile: broken, or no longer what `part` saw.
        """
        assert isinstance(part, GraphLinesPart)
        sample, last = (int(part.ends[block - 1]) if block else 0), int(part.ends[block])
        start, stop = int(part.offsets[block]), int(part.offsets[block + 1])
        at = dict.fromkeys(into, 0)
        for number, line in enumerate(
            io.BytesIO(read_bytes(file, start, stop - start)), int(part.lines[block])
        ):
            if not line.strip():
                continue
            try:
                graph = _parse(line)
                if sample == last:
                    raise _changed()
                for spec in part.fields:
                    value = _value(graph, spec)
                    count = int(part.rows[spec.name][sample]) if spec.ragged else 1
                    if value.shape != (count, *spec.row_shape):
                        raise _changed()
                    into[spec.name][at[spec.name] : at[spec.name] + count] = value
                    at[spec.name] += count
            except _BadLineError as bad:
                raise bad.at(file, number) from None
            sample += 1
        if sample != last:
            raise _changed().at(file, int(part.lines[block]))


class _Seen:
    """What a pass over the lines adds up to: counts of each graph, and none of its content."""

    def __init__(self) -> None:
        # Of each graph: its line, its nodes, its edges, and the numbers in its `y` (-1: not a list).
        self.line, self.nodes, self.edges, self.numbers = array("q"), array("q"), array("q"), array("q")
        self.columns: dict[str, int] = {}
        self.has: dict[str, bool] = {}
        self.whole_y = True
        self.other_keys: dict[str, None] = {}

    @property
    def samples(self) -> int:
        return len(self.line)

    def add(self, graph: _Graph, number: int) -> None:
        """Count `graph` in; it must have what those before it have."""
        for name, rows in (("x", graph.x), ("edge_attr", graph.edge_attr)):
            if len(rows) and (before := self.columns.setdefault(name, rows.shape[1])) != rows.shape[1]:
                why = _("a row of “{name}” has {count} numbers, in the lines before it has {before}")
                raise _BadLineError(
                    why.format(name=name, count=rows.shape[1], before=before),
                    _("Give every row the same numbers in the same order."),
                )
        for name, value in (("y", graph.y), ("split", graph.split)):
            if self.has.setdefault(name, value is not None) != (value is not None):
                why = _("“{name}” is missing") if value is None else _("“{name}” appears for the first time")
                hint = _("Give “{name}” in every line, or in none.")
                raise _BadLineError(why.format(name=name), hint.format(name=name))
        self.line.append(number)
        self.nodes.append(len(graph.x))
        self.edges.append(len(graph.edges))
        if graph.y is not None:
            self.numbers.append(len(graph.y) if graph.y.ndim else -1)
            self.whole_y &= graph.y.dtype.kind == "i"
        if len(self.other_keys) <= _KEYS_NAMED:
            self.other_keys.update(dict.fromkeys(key[:40] for key in graph.other_keys[:_KEYS_NAMED]))

    def fields(self, file: ByteFile) -> tuple[tuple[Field, ...], dict[str, Ints]]:
        """The fields that all graphs have, and the rows of the ragged ones."""
        nodes, edges = _ints(self.nodes), _ints(self.edges)
        if not nodes.any():
            raise unreadable(Path(file.name), _("none of its graphs has a node"))
        number = np.dtype(np.float32)
        fields = [
            Field("x", number, (None, self.columns["x"])),
            Field("edges", np.dtype(np.int64), (None, 2)),
        ]
        rows = {"x": nodes, "edges": edges}
        if columns := self.columns.get("edge_attr"):
            fields.append(Field("edge_attr", number, (None, columns)))
            rows["edge_attr"] = edges
        if self.has["y"]:
            shape = self._y_shape(file, nodes)
            fields.append(Field("y", np.dtype(np.int64) if self.whole_y else number, shape))
            if shape == (None,):
                rows["y"] = nodes
        if self.has["split"]:
            fields.append(Field("split", np.dtype(np.int8), (), _SPLITS))
        return tuple(fields), rows

    def _y_shape(self, file: ByteFile, nodes: Ints) -> tuple[int | None, ...]:
        numbers = _ints(self.numbers)
        unlike_nodes, unlike_first = np.flatnonzero(numbers != nodes), np.flatnonzero(numbers != numbers[0])
        if not len(unlike_nodes):
            return (None,)
        if not len(unlike_first) and numbers[0]:
            return () if numbers[0] < 0 else (int(numbers[0]),)
        # The line by which neither reading of `y` is left.
        at = max(int(unlike_nodes[0]), int(unlike_first[0]) if len(unlike_first) else 0)
        why = (
            _("“y” is one number, and a list in the lines before")
            if numbers[at] < 0
            else _("“y” has {count} numbers, neither one a node nor as many as in every other line")
        )
        hint = _("Let “y” be a number, a list of one length in all lines, or a list of one number a node.")
        raise _BadLineError(why.format(count=numbers[at]), hint).at(file, self.line[at])

    def left_out(self) -> tuple[str, ...]:
        """A sentence about the keys that nobody reads."""
        if not self.other_keys:
            return ()
        names = [f"“{key}”" for key in self.other_keys]
        more = ["…"] if len(names) > _KEYS_NAMED else []
        return (_("Not read: {names}.").format(names=", ".join(names[:_KEYS_NAMED] + more)),)


def _lines(file: ByteFile) -> Iterator[tuple[int, int, bytes]]:
    """The number (from 1), the offset and the text of each line that is not blank."""
    offset = 0
    with io.BufferedReader(FileObject(file), 1 << 20) as stream:
        number = 0
        while line := stream.readline(_LINE_BYTES + 1):
            number += 1
            if len(line) > _LINE_BYTES:
                why = _("it is longer than {size} MiB").format(size=_LINE_BYTES >> 20)
                hint = _("Write one graph a line; larger graphs belong into arrays.")
                raise _BadLineError(why, hint).at(file, number)
            if line.strip():
                yield number, offset, line
            offset += len(line)


def _parse(line: bytes) -> _Graph:
    """The graph in a line.

    Raises:
        _BadLineError: it is none.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        column = error.colno if isinstance(error, json.JSONDecodeError) else 1
        raise _BadLineError(_("the text is not JSON (at column {column})").format(column=column)) from None
    if not isinstance(record, dict):
        raise _BadLineError(_("there is no object in braces"), _('Write {"x": …, "edges": …} in each line.'))
    for key in ("x", "edges"):
        if record.get(key) is None:
            raise _BadLineError(_("“{name}” is missing").format(name=key))
    x, edges = _table(record["x"], "x"), _table(record["edges"], "edges")
    edge_attr = edges[:, 2:]
    if record.get("edge_attr") is not None:
        if edge_attr.shape[1]:
            why = _("edges have attributes twice, in “edges” and in “edge_attr”")
            raise _BadLineError(why, _("Keep one of the two."))
        edge_attr = _table(record["edge_attr"], "edge_attr")
        if len(edge_attr) != len(edges):
            why = _("“edge_attr” has {count} rows for {edges} edges")
            raise _BadLineError(why.format(count=len(edge_attr), edges=len(edges)))
    return _Graph(
        _single(x, "x"),
        _node_numbers(edges, len(x)),
        _single(edge_attr, "edge_attr"),
        None if record.get("y") is None else _target(record["y"]),
        None if record.get("split") is None else _split(record["split"]),
        tuple(key for key in record if key not in _KEYS),
    )


def _table(value: Any, name: str) -> Array:
    """Rows of numbers as (rows, columns) float64; of a flat list, each number is a row; null is NaN."""
    try:
        # With a dtype: left to itself, NumPy would give each cell the length of the longest text.
        table = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        table = np.empty(())
    if table.ndim not in (1, 2) or (len(table) and not table.size):
        why = _("“{name}” is not a list of rows of equally many numbers").format(name=name)
        raise _BadLineError(why, _("Give every row the same numbers in the same order."))
    if not len(table):
        return np.empty((0, 2 if name == "edges" else 0))
    return table.reshape(len(table), -1)


def _single(x: Array, name: str) -> Array:
    """As float32; a number that it cannot hold is refused, as it would become infinite."""
    try:
        with np.errstate(over="raise"):
            return x.astype(np.float32)
    except FloatingPointError:
        raise _BadLineError(_("“{name}” has a number beyond 3.4e38").format(name=name)) from None


def _node_numbers(edges: Array, nodes: int) -> Ints:
    """The first two columns of `edges` as int64, all of them nodes that are there."""
    ends = edges[:, :2]
    if ends.shape[1] < 2:
        hint = _("Write each edge as [from, to].")
        raise _BadLineError(_("a row of “edges” does not have two node numbers"), hint)
    wrong = np.flatnonzero(~((ends >= 0) & (ends < nodes) & (ends == np.floor(ends))).all(1))
    if len(wrong):
        start, stop = (f"{number:.15g}" for number in ends[wrong[0]])
        why = _("edge {edge} joins node {start} with node {stop}, but the nodes are 0 to {last}")
        if not nodes:
            why = _("edge {edge} joins node {start} with node {stop}, but there is no node")
        raise _BadLineError(
            why.format(edge=wrong[0], start=start, stop=stop, last=nodes - 1),
            _("Count nodes from 0 within each graph, as the rows of “x”."),
        )
    return ends.astype(np.int64)


def _target(value: Any) -> Array:
    """A number as (), a list of them as (K,): int64 if all are whole numbers, else float32."""
    values = value if isinstance(value, list) else [value]
    try:
        if all(isinstance(number, int) for number in values):
            y: Array = np.array(values, np.int64)
        elif all(number is None or isinstance(number, int | float) for number in values):
            y = _single(np.array(values, np.float64), "y")
        else:
            raise TypeError
    except (TypeError, OverflowError):
        why = _("“y” is neither a number nor a flat list of numbers")
        raise _BadLineError(why, _("Number the classes from 0, and give their numbers.")) from None
    return y if isinstance(value, list) else y[0]


def _split(value: Any) -> int:
    number = _SPLIT_NUMBERS.get(value) if isinstance(value, str) else None
    if number is None:
        shown = json.dumps(value, ensure_ascii=False)[:40]
        raise _BadLineError(
            _("the split is {value}").format(value=shown), _("Write “train”, “val” or “test”.")
        )
    return number


def _value(graph: _Graph, spec: Field) -> Array:
    """What `graph` puts into a field: (rows, …) if ragged, else (1, …)."""
    value = getattr(graph, spec.name)
    if value is None or (spec.name == "y" and value.dtype.kind == "f" and spec.dtype.kind == "i"):
        raise _changed()
    rows: Array = np.asarray(value)
    if not spec.ragged:
        return rows[None]
    # Without a row, the line did not say how many columns there are.
    return rows if len(rows) else rows.reshape(0, *spec.row_shape)


def _changed() -> _BadLineError:
    return _BadLineError(
        _("the graph is not what it was when the file was indexed"), _("Index the data again.")
    )


def _ints(values: array[int]) -> Ints:
    return np.array(values, np.int64)
