"""What the objects of a `torch.save` file are: arrays of all its samples, or samples one by one.

It names the fields and takes graphs apart; it reads no values but the ends of joined samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.messages import _
from caudal.data.byte_file import ByteFile, FileObject
from caudal.data.sample_files.arrangement import checked_ends
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_files.torch_archive import Laid, TorchArchive
from caudal.data.unreadable import unreadable

Value = Laid | Array  # a tensor in the file, or a number that was in its objects (shape ())

_GRAPH_ARRAYS = ("x", "edge_index", "edge_attr", "y")
_EDGES = "edges"


@dataclass(frozen=True)
class Arrays:
    """Arrays by field name; `ends` has those of ragged samples that are known already.

    `is_list` says that the first axis counts samples in any case.
    """

    values: dict[str, Value]
    ends: dict[str, Ints] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    is_list: bool = False


@dataclass(frozen=True)
class Samples:
    """The values of each field, one a sample; those in `ragged` may always differ in length."""

    values: dict[str, list[Value]]
    ragged: frozenset[str] = frozenset()
    left_out: list[str] = field(default_factory=list)
    is_list = True

    @property
    def count(self) -> int:
        """How many samples."""
        return len(next(iter(self.values.values())))


def content(file: ByteFile, archive: TorchArchive) -> Arrays | Samples:
    """What `archive` of `file` holds.

    Raises:
        UnreadableFile: neither tensors nor samples, or nothing at all.
    """
    return _Sorter(file, archive).sort(archive.content)


class _Sorter:
    """Tells by its Python types what one file holds."""

    def __init__(self, file: ByteFile, archive: TorchArchive) -> None:
        self._file, self._archive, self._path = file, archive, Path(file.name)

    def sort(self, found: Any) -> Arrays | Samples:
        if (value := self._value("x", found)) is not None:
            return Arrays({"x": value})
        if _is_graph(found):
            return self._graphs([found.to_dict()])
        if isinstance(found, Mapping):
            return self._arrays({str(name): value for name, value in found.items()})
        if isinstance(found, tuple | list) and found:
            return self._sequence(found)
        raise unreadable(
            self._path,
            _("it holds {kind}, not tensors").format(kind=type(found).__name__),
            _("Save a tensor, a dict of tensors, or a list of samples that are dicts or tuples of tensors."),
        )

    def _sequence(self, found: Sequence[Any]) -> Arrays | Samples:
        if all(_is_graph(item) for item in found):
            return self._graphs([item.to_dict() for item in found])
        if 2 <= len(found) <= 3 and (_is_graph(found[0]) or isinstance(found[-1], type)):
            # (data, slices), or (its dict, slices, its class): how InMemoryDataset saves its graphs
            one = found[0].to_dict() if _is_graph(found[0]) else found[0]
            if isinstance(one, Mapping) and found[1] is None:
                return self._graphs([one])
            if isinstance(one, Mapping) and isinstance(found[1], Mapping):
                return self._joined_graphs(one, found[1])
        if all(isinstance(item, Mapping) for item in found):
            return self._samples([{str(name): value for name, value in item.items()} for item in found])
        if all(isinstance(item, tuple | list) and item for item in found):
            return self._samples([_numbered(item) for item in found])
        return self._arrays(_numbered(found))

    def _value(self, name: str, found: Any) -> Value | None:
        """A tensor or a number; `None` for all else."""
        import torch

        if isinstance(found, torch.Tensor):
            return self._archive.laid(name, found)
        if isinstance(found, bool | int | float):
            number = np.array(found)
            return number if number.dtype.kind in "bif" else None
        return None

    def _arrays(self, found: Mapping[str, Any]) -> Arrays:
        values = {name: value for name in found if (value := self._value(name, found[name])) is not None}
        return Arrays(values, left_out=_left_out(set(found) - set(values)))

    def _samples(self, found: Sequence[Mapping[str, Any]]) -> Samples:
        names = list(found[0])
        values: dict[str, list[Value]] = {name: [] for name in names}
        for number, sample in enumerate(found):
            if sample.keys() != found[0].keys():
                raise unreadable(
                    self._path,
                    _("its sample {number} has the values {these}, and the first {those}").format(
                        number=number, these=", ".join(sample), those=", ".join(names)
                    ),
                )
            for name in names:
                if (value := self._value(name, sample[name])) is not None:
                    values[name].append(value)
        whole = {name: of for name, of in values.items() if len(of) == len(found)}
        if not whole:
            raise unreadable(self._path, _("its samples hold no tensors"))
        return Samples(whole, left_out=_left_out(set(names) - set(whole)))

    def _graphs(self, graphs: Sequence[Mapping[str, Any]]) -> Samples:
        found = self._samples([_graph_arrays(graph) for graph in graphs])
        values: dict[str, list[Value]] = {}
        ragged = {"x", _EDGES, "edge_attr"}
        for name, of in found.values.items():
            edges = name == "edge_index"
            values[_EDGES if edges else name] = [self._edges(value) for value in of] if edges else of
        # A graph's own target is (1,) or (1, targets); one of another length is of its nodes.
        if any(value.shape[:1] not in ((), (1,)) for value in values.get("y", [])):
            ragged.add("y")
        elif "y" in values:
            values["y"] = [_without_first_axis(value) for value in values["y"]]
        others = set().union(*graphs) - set(_GRAPH_ARRAYS)
        return Samples(values, frozenset(ragged), [*found.left_out, *_not_graph(others)])

    def _joined_graphs(self, joined: Mapping[str, Any], slices: Mapping[str, Any]) -> Arrays:
        """Graphs whose arrays lie behind each other; `slices` has the first row of each, and the last end."""
        values: dict[str, Value] = {}
        ends: dict[str, Ints] = {}
        for name, found in _graph_arrays(joined).items():
            value, bounds = self._value(name, found), self._value(name, slices.get(name))
            if not isinstance(value, Laid) or not isinstance(bounds, Laid) or not value.shape:
                continue
            field_name = _EDGES if name == "edge_index" else name
            value = self._edges(value) if name == "edge_index" else value
            values[field_name] = value
            ends[field_name] = self._ends(name, bounds, value.shape[0])
        if "y" in ends and np.array_equal(ends["y"], np.arange(1, len(ends["y"]) + 1)):
            del ends["y"]
        taken = {"edge_index" if name == _EDGES else name for name in values}
        return Arrays(values, ends, _not_graph(set(joined) - taken), is_list=True)

    def _ends(self, name: str, bounds: Laid, rows: int) -> Ints:
        called = f"slices[{name!r}]"
        if len(bounds.shape) != 1 or bounds.stored.kind not in "iu" or not bounds.shape[0]:
            raise unreadable(self._path, _("“{name}” has to be a list of whole numbers").format(name=called))
        numbers = np.empty(bounds.shape, bounds.dtype)
        bounds.read(BufferedReader(FileObject(self._file)), numbers)
        if numbers[0] != 0:
            raise unreadable(self._path, _("“{name}” does not begin with 0").format(name=called))
        return checked_ends(self._path, called, numbers[1:], rows)

    def _edges(self, value: Value) -> Laid:
        """`edge_index` (2, edges) as (edges, 2), int64."""
        if not isinstance(value, Laid) or len(value.shape) != 2 or value.shape[0] != 2:
            raise unreadable(self._path, _("its “edge_index” has not the shape (2, edges)"))
        return replace(value, dtype=np.dtype(np.int64), shape=value.shape[::-1], strides=value.strides[::-1])


def _is_graph(found: Any) -> bool:
    return type(found).__module__.startswith("torch_geometric.") and hasattr(found, "to_dict")


def _graph_arrays(graph: Mapping[str, Any]) -> dict[str, Any]:
    return {name: graph[name] for name in _GRAPH_ARRAYS if graph.get(name) is not None}


def _numbered(items: Sequence[Any]) -> dict[str, Any]:
    names = {1: ("x",), 2: ("x", "y")}.get(len(items)) or [str(i) for i in range(len(items))]
    return dict(zip(names, items, strict=True))


def _without_first_axis(value: Value) -> Value:
    if not value.shape:
        return value
    assert isinstance(value, Laid)
    return replace(value, shape=value.shape[1:], strides=value.strides[1:])


def _left_out(names: set[str]) -> list[str]:
    return [_("“{name}” is left out: it is no tensor.").format(name=name) for name in sorted(names)]


def _not_graph(names: set[str]) -> list[str]:
    sentence = _("“{name}” is left out: of a graph, the tensors {taken} are read.")
    return [sentence.format(name=name, taken=", ".join(_GRAPH_ARRAYS)) for name in sorted(names)]
