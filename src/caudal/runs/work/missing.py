"""What is said of values that are missing, and of values that training never saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caudal.core.messages import _
from caudal.data.batches import Batch
from caudal.runs.work.features import Features


def missing_words(share: float, *, some: bool = False, of: str = "") -> tuple[str, ...]:
    """What is to be said of a `share` of values of the field `of` (none: all); `some`: it is an estimate."""
    if not share:
        return ()
    if of:
        text = _("{share} of the values of “{field}” are missing or not finite; each counts as the mean.")
    else:
        text = _("{share} of the values are missing or not finite; a missing value counts as the mean.")
    about = _("About {share:.1%}") if some else "{share:.1%}"
    return (text.format(share=about.format(share=share), field=of),)


class Watched:
    """What prepares batches, and says at the end what was missing in them, and what training never saw."""

    def __init__(
        self, prepare: Callable[[Batch, slice], tuple[Any, Any]], features: dict[str, Features]
    ) -> None:
        """`features` by the name of their field; none for the one that there always is."""
        self._prepare, self._features = prepare, features

    def __call__(self, batch: Batch, part: slice) -> tuple[Any, Any]:
        """Input and target."""
        return self._prepare(batch, part)

    def warnings(self) -> list[str]:
        """See `Watchful`."""
        said = list[str]()
        for name, one in self._features.items():
            said += missing_words(one.missing, of=name)
            said += one.encode.warnings()
        return said
