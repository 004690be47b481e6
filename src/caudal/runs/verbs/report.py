"""`report`: all that a run left behind, on one page."""

from __future__ import annotations

from pathlib import Path

from caudal.core.files import write_whole
from caudal.runs.folder import RunFolder


def report(run: str | Path) -> Path:
    """Write `report.html` of a run, finished or not, and pictures into its folder `examples`.

    The page needs nothing else: styles, curves and pictures are in it. Returns its path.

    Raises:
        UsageError: there is no run at `run`.
        DiskFull: no space was left; an earlier report stays.
    """
    folder = RunFolder.existing(Path(run))
    # Imported here: whoever trains would else hold a template engine from the start.
    from caudal.runs.report.page import render
    from caudal.runs.report.story import read_story

    text = render(read_story(folder))
    write_whole(folder.report, lambda part: part.write_text(text, encoding="utf-8"))
    return folder.report
