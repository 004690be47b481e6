"""Windows of a spec: which field is cut, what each window is labelled with, and what is said of it."""

from __future__ import annotations

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.data.sample_files.base import Field, Ints
from caudal.data.sample_set import SampleSet
from caudal.data.sample_values import field_of
from caudal.data.sample_windows import label_windows, windows
from caudal.runs.spec import DataSettings
from caudal.runs.work.sought import NAMES as TARGETS

_SEQUENCES = ("x", "sequence", "series", "features", "signal", "data", "inputs", "input")


def cut(samples: SampleSet, data: DataSettings) -> tuple[SampleSet, Ints, str]:
    """The set of windows, the number of the sequence of each, and a sentence on it.

    Raises:
        DataError: files from which no window can be cut.
        UsageError: there is no field of sequences.
    """
    target = _target(samples, data.target)
    stride = data.stride or data.window
    made, of = windows(samples, _sequence(samples, target), data.window, stride)
    said = [
        _(
            "{count} sequences are cut into {windows} windows of up to {length} steps, one every {stride}."
        ).format(count=len(samples), windows=len(made), length=data.window, stride=stride)
    ]
    if stride > data.window:
        said.append(_("The steps between two windows are left out."))
    one = field_of(made, target) if target else None
    if one is not None and one.ragged and data.window_label != "steps":
        made = label_windows(made, one.name, data.window_label)
        by = {
            "last": _("A window has the label “{field}” of its last step."),
            "majority": _("A window has the label “{field}” that most of its steps have."),
        }
        said.append(by[data.window_label].format(field=one.name))
    elif one is not None and one.ragged:
        said.append(_("Every step of a window keeps its “{field}”.").format(field=one.name))
    elif one is not None:
        said.append(_("A window has the “{field}” of its sequence.").format(field=one.name))
    return made, of, " ".join(said)


def _target(samples: SampleSet, asked: str | None) -> str | None:
    lower = {one.name.lower(): one.name for one in samples.fields}
    return asked or next((lower[name] for name in TARGETS if name in lower), None)


def _sequence(samples: SampleSet, target: str | None) -> str:
    """The field that is cut: the only one of rows of numbers, or the one with a usual name."""
    found = [f for f in samples.stored if f.shape and f.dtype.kind in "fiu" and f.name != target]
    if len(found) > 1:
        found = _usual(found) or found
    if not found or (len(found) > 1 and not _usual(found)):
        raise UsageError(
            _("{path} holds no field of sequences that windows could be cut from.").format(path=samples.root),
            _("Its fields are: {names}. Name a field of sequences “x”.").format(
                names=", ".join(one.name for one in samples.fields)
            ),
        )
    return found[0].name


def _usual(fields: list[Field]) -> list[Field]:
    return [one for one in fields if one.name.lower() in _SEQUENCES]
