"""`report`: all that a run left behind, on one page."""

from __future__ import annotations

from pathlib import Path

from caudal.runs.folder import RunFolder


def report(run: str | Path) -> Path:
    """Write `report.html` of a run; returns its path."""
    folder = RunFolder.existing(Path(run))
    return folder.report
