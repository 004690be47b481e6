"""What a pack looks like on disk, for those who write it and those who read it."""

from __future__ import annotations

from pathlib import Path

from caudal.core.errors import DataError
from caudal.core.messages import _

UNFINISHED, SCHEMA = "pack.unfinished", "pack.json"
BLOCKS, CHECKS = "caudal.blocks", "caudal.checks"
CATEGORIES, FIELDS = "caudal.categories", "caudal.fields"  # in the metadata, as JSON


def check_finished(root: Path) -> None:
    """Raise if `root` is a pack that was not finished.

    Raises:
        DataError: it is.
    """
    if (root / UNFINISHED).exists():
        raise DataError(
            _("{path} is a pack that was not finished.").format(path=root),
            _("Run the same `caudal pack` command again; it goes on where it stopped."),
        )
