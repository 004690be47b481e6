"""Run rows and write `RESULTS.md` (only the rows that were run are replaced)."""

from __future__ import annotations

import json
import platform
import sys
from datetime import date
from pathlib import Path

from caudal.runs.machine import settle

settle()

from benchmarks.rows import ROWS, Row, get  # noqa: E402

HERE = Path(__file__).parent
STORE, PAGE = HERE / "results.json", HERE / "RESULTS.md"


def main() -> None:
    """Measure what is named, or all."""
    names = sys.argv[1:] or list(ROWS)
    for name in names:
        row = get(name)()
        stored = json.loads(STORE.read_text()) if STORE.exists() else {}
        stored[name] = {**row.__dict__, "date": date.today().isoformat(), "machine": machine()}
        STORE.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(page({key: stored[key] for key in ROWS if key in stored}))
        print_row(name, row)


def machine() -> str:
    """The processor, as the system names it, and how many."""
    import os

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())
    return f"{len(os.sched_getaffinity(0))} × {name}"


def print_row(name: str, row: Row) -> None:
    """A row on the terminal."""
    print(f"{name}: {row.claim} [{'met' if row.met else 'NOT MET'}: {row.target}]", flush=True)
    for label, value in row.figures:
        print(f"    {label}: {value}", flush=True)


def page(rows: dict[str, dict]) -> str:  # type: ignore[type-arg]
    """All rows as Markdown."""
    parts = [
        "# Results",
        "",
        "Written by `make bench`. Each row ran on the day and the machine that it names.",
        "",
    ]
    for name, row in rows.items():
        verdict = "met" if row["met"] else "**not met**"
        parts += [f"## {name}", "", f"{row['claim']}", "", f"Target: {row['target']} ({verdict}). "
                  f"{row['date']}, {row['machine']}.", "", "| figure | value |", "|---|---|"]  # fmt: skip
        parts += [f"| {label} | {value} |" for label, value in row["figures"]]
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
