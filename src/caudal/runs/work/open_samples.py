"""Opens a set of samples and the table that says more of it; finds groups, and parts that the data name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.core.registry import Registry
from caudal.data.paths import local_path
from caudal.data.sample_files.base import Array, Ints
from caudal.data.sample_index import labels_from_folders, with_extra
from caudal.data.sample_listing import texts
from caudal.data.sample_set import SampleSet
from caudal.data.sample_split import called
from caudal.data.sample_table import LABEL_COLUMNS, read_table
from caudal.data.sample_values import column, field_of
from caudal.data.text_column import TextColumn
from caudal.runs.spec import RunSpec
from caudal.runs.work.base import Tick
from caudal.runs.work.cut import cut
from caudal.runs.work.kind import Kind
from caudal.runs.work.sought import NAMES
from caudal.runs.work.targets_seen import MOST_CLASSES

KINDS = Registry(
    "task",
    "caudal.kinds",
    {
        "classification": "caudal.runs.work.pictures:Pictures",
        "sequence": "caudal.runs.work.series:Series",
        "graph": "caudal.runs.work.graph_kind:Graphs",
    },
)
SPLIT = "split"
FOLDERS = "label"
_MOST_NAMED = 3


@dataclass(frozen=True)
class Opened:
    """A set with its table: `members` are the samples that are there to be used."""

    samples: SampleSet
    members: Ints
    kind: Kind
    groups: Ints | None
    split: tuple[Ints, tuple[str, ...]] | None
    columns: dict[str, TextColumn]
    notes: tuple[str, ...]

    @property
    def used(self) -> SampleSet:
        """The set, of which streams draw the members alone."""
        return self.samples if len(self.members) == len(self.samples) else self.samples.only(self.members)


def open_samples(spec: RunSpec, tick: Tick = lambda _done, _total: None) -> Opened:
    """Index the samples of a spec, and read what a table says of them.

    Raises:
        DataError: the files do not belong together, or cannot be read.
        UsageError: more than one folder, or a group that is nowhere.
    """
    if len(spec.data.images) != 1:
        raise UsageError(
            _("The task {task} takes one folder, file or pack.").format(task=spec.task),
            _("Put the files below one folder."),
        )
    kind: Kind = KINDS.get(spec.task)()
    samples = kind.open_set(spec, tick)
    members = np.arange(len(samples), dtype=np.int64)
    columns: dict[str, TextColumn] = {}
    notes: tuple[str, ...] = ()
    if spec.data.labels is None:
        samples = _by_folders(samples, spec.data.target)
    if spec.data.labels is not None:
        table = read_table(local_path(spec.data.labels), samples)
        members, columns, notes = table.members, table.columns, table.notes
        samples = _with_label(samples, members, columns, spec)
    groups, parts = _groups(spec, samples, members, columns), _parts(spec, samples, members, columns)
    names, said = called(parts[1] if parts else ())
    if spec.data.window:
        samples, of, note = _cut(spec, samples)
        # What is known of a sequence is known of its windows; they stay on one side of a split.
        groups = of if groups is None else groups[of]
        parts = (parts[0][of], parts[1]) if parts else None
        row = np.full(int(of[-1]) + 1, -1, np.int64)
        row[members] = np.arange(len(members))
        members = np.flatnonzero(row[of] >= 0)
        columns = {name: texts.taken(row[of[members]]) for name, texts in columns.items()}
        notes = (*notes, note)
    return Opened(
        samples,
        members,
        kind,
        groups,
        (parts[0], names) if parts else None,
        columns,
        (*samples.notes, *notes, *said, *_left_out(samples)),
    )


def _cut(spec: RunSpec, samples: SampleSet) -> tuple[SampleSet, Ints, str]:
    if spec.task != "sequence":
        raise UsageError(
            _("data.window is for sequences, and the task is {task}.").format(task=spec.task),
            _("Leave the key out."),
        )
    return cut(samples, spec.data)


def _left_out(samples: SampleSet) -> list[str]:
    """What is to be said of files of which not even the header can be read."""
    if not samples.unreadable:
        return []
    names = [Path(name).name for name, _why in samples.unreadable]
    shown = ", ".join(names[:_MOST_NAMED]) + (" …" if len(names) > _MOST_NAMED else "")
    return [
        _("{count} files cannot be read and are left out, {files}: {why}").format(
            count=len(names), files=shown, why=samples.unreadable[0][1]
        )
    ]


def _by_folders(samples: SampleSet, target: str | None) -> SampleSet:
    """The set with a label from folders, where files are a sample each and say nothing of what they are."""
    alone = len(samples.columns.names) == len(samples)
    said = {one.name.lower() for one in samples.fields} & set(NAMES)
    if not alone or said or target not in (None, FOLDERS):
        return samples
    return labels_from_folders(samples) or samples


def _with_label(
    samples: SampleSet, members: Ints, columns: dict[str, TextColumn], spec: RunSpec
) -> SampleSet:
    """The set with the table's label as a field."""
    wanted = spec.data.target
    name = next((n for n in columns if n == wanted or (wanted is None and n.lower() in LABEL_COLUMNS)), None)
    if name is None:
        return samples
    texts = columns[name]
    try:
        numbers = texts.numbers()
        values: Array = np.full(len(samples), np.nan)
        values[members] = numbers
        categories: tuple[str, ...] = ()
        kinds = np.unique(numbers[np.isfinite(numbers)])
        if len(kinds) and len(kinds) <= MOST_CLASSES and (kinds == np.rint(kinds)).all():
            values = np.where(np.isfinite(values), values, -1).astype(np.int64)
    except ValueError:
        codes, every = texts.coded()
        categories = tuple(text for text in every if text)
        values = np.full(len(samples), -1, np.int64)
        values[members] = codes - (len(every) - len(categories))  # no text is unknown, and sorted first
    if any(one.name == name for one in samples.fields):  # the folders say something else, the table counts
        extra = {key: value for key, value in samples.columns.extra.items() if key != name}
        samples = replace(
            samples,
            fields=tuple(one for one in samples.fields if one.name != name),
            columns=replace(samples.columns, extra=extra),
        )
    return with_extra(samples, name, values, categories)


def _coded(texts: TextColumn, members: Ints, count: int) -> tuple[Ints, tuple[str, ...]]:
    own, names = texts.coded()
    codes = np.full(count, -1, np.int64)
    codes[members] = own
    return codes, names


def _groups(spec: RunSpec, samples: SampleSet, members: Ints, columns: dict[str, TextColumn]) -> Ints | None:
    wanted = spec.split.group
    if wanted is None:
        return None
    if wanted in columns:
        return _coded(columns[wanted], members, len(samples))[0]
    if field_of(samples, wanted) is not None:
        _names, codes = np.unique(column(samples, wanted), return_inverse=True)
        return codes.astype(np.int64)
    raise UsageError(
        _("There is no field or column “{name}” to group by.").format(name=wanted),
        _("There are: {names}.").format(
            names=", ".join([*(one.name for one in samples.fields), *columns]) or "-"
        ),
    )


def _parts(
    spec: RunSpec, samples: SampleSet, members: Ints, columns: dict[str, TextColumn]
) -> tuple[Ints, tuple[str, ...]] | None:
    """Codes and names of a column `split`, or of folders of such names."""
    if SPLIT in columns:
        return _coded(columns[SPLIT], members, len(samples))
    one = field_of(samples, SPLIT)
    if one is not None and one.shape == ():
        values = column(samples, SPLIT)
        if one.categories:
            return values.astype(np.int64), one.categories
        known = np.isfinite(values) & (values >= 0)
        kinds = np.unique(values[known])
        codes = np.where(known, np.searchsorted(kinds, values), -1)
        return codes.astype(np.int64), tuple(str(kind).removesuffix(".0") for kind in kinds.tolist())
    return _parts_by_folders(samples)


def _parts_by_folders(samples: SampleSet) -> tuple[Ints, tuple[str, ...]] | None:
    """The folders right below the root as parts, where one of them is called train."""
    names = samples.columns.names
    begin = len(samples.root.replace("\\", "/").rstrip("/")) + 1
    number: dict[str, int] = {}
    tops = (name[begin:].replace("\\", "/").partition("/") for name in texts(names))
    # A file beside the folders is in none of them.
    of_file = np.fromiter(
        (number.setdefault(top, len(number)) if below else -1 for top, _slash, below in tops),
        np.int64,
        len(names),
    )
    if "train" not in {name.lower() for name in number}:
        return None
    return np.repeat(of_file, np.diff(samples.columns.file_ends, prepend=0)), tuple(number)
