"""What past runs teach about predictions: how far above them the truth has been, for runs of one kind.

After each run the predicted and the measured peak are kept in the user's cache folder. The margin of the next
plan is the 95th percentile of past under-predictions (split conformal: Vovk, Gammerman and Shafer,
"Algorithmic Learning in a Random World", 2005); with few of them, the worst. A kind is a model on samples of
one shape, on a device, in a precision: errors are the kernels' and the allocator's, not the data's.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from pathlib import Path

from caudal.core.caches import keep, user_cache

FIRST = 0.025
"""Of runs of a kind that nobody has seen: the same run differs by as much from time to time."""
_SHARE = 0.95
_KEPT = 100  # of one kind
_MOST = 0.25  # past this something else is wrong, and a smaller plan is the wrong answer


def _file(kind: str) -> Path:
    name = hashlib.blake2b(kind.encode(), digest_size=12).hexdigest()
    return user_cache() / "caudal" / "predictions" / f"{name}.jsonl"


def on_device(kind: str) -> str:
    """The name of a kind's errors on the device; its plain name is that of those on the host."""
    return f"{kind} vram"


def learned(kind: str, first: float = FIRST) -> tuple[float, int]:
    """The margin, as a share of the prediction, and how many runs it is from.

    `first` counts as one of them, so that a few good ones do not do away with it.
    """
    ratios = sorted([1 + first, *_ratios(kind)])
    rank = min(len(ratios), math.ceil((len(ratios) + 1) * _SHARE))
    return min(_MOST, max(0.0, ratios[rank - 1] - 1)), len(ratios) - 1


def note(kind: str, predicted: int, measured: int) -> None:
    """Keep what came of a prediction (without its margin); where that cannot be written, nothing is lost."""
    if predicted <= 0 or measured <= 0:
        return
    path = _file(kind)
    with suppress(OSError):
        lines = path.read_text().splitlines()[1 - _KEPT :] if path.exists() else []
        line = json.dumps({"predicted": predicted, "measured": measured})
        keep(path, "\n".join([*lines, line]) + "\n")


def note_at_least(kind: str, predicted: int, measured: int) -> None:
    """The same of a run that was ended before its peak: it says something only past the prediction."""
    if measured > predicted:
        note(kind, predicted, measured)


def _ratios(kind: str) -> list[float]:
    """Measured ÷ predicted; lines that cannot be read are passed over."""
    ratios = []
    with suppress(OSError):
        for line in _file(kind).read_text().splitlines():
            with suppress(ValueError, KeyError, TypeError, ZeroDivisionError):
                one = json.loads(line)
                ratios.append(float(one["measured"]) / float(one["predicted"]))
    return ratios
