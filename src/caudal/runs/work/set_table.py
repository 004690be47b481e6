"""What a model predicts of samples, or of their steps or nodes, as a table that is written as it comes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from caudal.core.errors import UsageError
from caudal.core.files import write_whole
from caudal.core.messages import _
from caudal.data.sample_files.base import Array, Ints
from caudal.runs.spec import RunSpec
from caudal.runs.work.open_samples import Opened
from caudal.runs.work.set_model import SetModel
from caudal.runs.work.sought import Sought


def write_predictions(
    model: SetModel,
    opened: Opened,
    spec: RunSpec,
    out: Path,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write a row for each sample: its file and number, what is predicted, and how likely each class is.

    Of a model that says something of every step or node there is a row for each of these, with its place in
    the sample. CSV, or Parquet where `out` ends so. Gives the number of rows; `tick` hears how many are done.

    Raises:
        DiskFull: no space; nothing is left under the output's name.
    """
    header = _header(model.sought)
    rows = _rows(model, opened, spec, tick)
    written = 0

    def write(part: Path) -> None:
        nonlocal written
        if out.suffix == ".parquet":
            written = _write_parquet(part, header, rows)
            return
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row in rows:
                writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
                written += 1

    write_whole(out, write)
    return written


def _header(sought: Sought) -> list[str]:
    at = ["file", "sample", "place"] if sought.per_row else ["file", "sample"]
    if sought.kind == "regression":
        return [*at, *sought.names]
    return [*at, "predicted", *(f"p_{name}" for name in sought.names)]


def _rows(
    model: SetModel, opened: Opened, spec: RunSpec, tick: Callable[[int, int], None]
) -> Iterator[list[Any]]:
    sought, names = model.sought, opened.samples.columns.names
    target = getattr(model.task, "target", None)
    thresholds = (target.thresholds if target else ()) or (0.5,) * max(1, sought.outputs)
    done = 0
    for numbers, (found, _truth) in model.each(opened, spec, opened.members):
        for number, said in zip(numbers.tolist(), _apart(model, opened, numbers, found), strict=True):
            file, within = opened.samples.where(number)
            for place, values in enumerate(_both(sought, said).tolist()):
                at = [names[file], within, place] if sought.per_row else [names[file], within]
                yield [*at, *_called(sought, values, thresholds), *values]
        done += len(numbers)
        tick(done, len(opened.members))


def _apart(model: SetModel, opened: Opened, numbers: Ints, found: Array) -> Iterator[Array]:
    """What was said of each sample: (rows, K); without truths of rows there is one."""
    if not model.sought.per_row:
        yield from found[:, None]
        return
    lengths = model.kind.places(opened.samples, model.inputs, numbers)
    if found.ndim == 3:  # side by side, filled up
        yield from (said[:length] for said, length in zip(found, lengths.tolist(), strict=True))
        return
    yield from np.split(found, np.cumsum(lengths)[:-1])


def _both(sought: Sought, said: Array) -> Array:
    """Of two classes the probability of each, where a model says that of the second."""
    return np.concatenate([1 - said, said], 1) if sought.kind == "binary" and said.shape[1] == 1 else said


def _called(sought: Sought, values: list[float], thresholds: tuple[float, ...]) -> list[str]:
    if sought.kind == "multilabel":
        called = zip(sought.names, values, thresholds, strict=True)
        return [" ".join(name for name, p, least in called if p >= least)]
    if sought.kind == "binary":
        return [sought.names[int(values[1] >= thresholds[0])]]
    return [sought.names[int(np.argmax(values))]] if sought.kind == "multiclass" else []


def _write_parquet(part: Path, header: list[str], rows: Iterator[list[Any]]) -> int:
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise UsageError(
            _("Parquet needs pyarrow, which is not installed."),
            _("Install it with `pip install caudal[tables]`, or write a .csv."),
        ) from None
    writer, held, total = None, list[list[Any]](), 0

    def flush() -> None:
        nonlocal writer
        table = pa.table({name: [row[k] for row in held] for k, name in enumerate(header)})
        writer = writer or pq.ParquetWriter(part, table.schema)
        writer.write_table(table)
        held.clear()

    for row in rows:
        held.append(row)
        total += 1
        if len(held) >= 1 << 16:
            flush()
    if held or writer is None:
        flush()
    assert writer is not None
    writer.close()
    return total
