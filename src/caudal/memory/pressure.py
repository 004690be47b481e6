"""Memory pressure (PSI): the share of time in which work stood still because memory had to be found first.

The machine's own, and that of this process's group. It rises before anything is killed. Does not judge it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from caudal.memory import cgroup_places
from caudal.memory.kernel_files import text


@dataclass(frozen=True, slots=True)
class Pressure:
    """Shares in percent of the last 10, 60 and 300 seconds, and the sum since the start, in seconds.

    `some` is the time in which at least one task waited, `full` that in which all did.
    """

    some: float
    full: float
    some_60: float = 0.0
    full_60: float = 0.0
    some_300: float = 0.0
    full_300: float = 0.0
    some_seconds: float = 0.0
    full_seconds: float = 0.0


def of_machine(root: Path = Path("/")) -> Pressure | None:
    """The machine's pressure, or `None` where the kernel does not tell."""
    return _read(root / "proc/pressure/memory")


def of_group(root: Path = Path("/"), pid: str = "self") -> Pressure | None:
    """The pressure in the group of process `pid`, or `None` where the kernel does not tell.

    It is kept in the v2 tree, also where memory itself is limited in v1's.
    """
    place = cgroup_places.find(root, pid).unified
    return None if place is None or not place.exact else _read(place.folder / "memory.pressure")


def _read(path: Path) -> Pressure | None:
    # Empty without the file, and where it was switched off at boot: reading then fails.
    rows = [line.split() for line in text(path).splitlines() if line.strip()]
    shares = {row[0]: dict(pair.split("=") for pair in row[1:]) for row in rows}
    if "some" not in shares:
        return None
    some, full = shares["some"], shares.get("full", {})
    return Pressure(
        some=float(some["avg10"]),
        full=float(full.get("avg10", 0)),
        some_60=float(some["avg60"]),
        full_60=float(full.get("avg60", 0)),
        some_300=float(some["avg300"]),
        full_300=float(full.get("avg300", 0)),
        some_seconds=int(some["total"]) / 1e6,
        full_seconds=int(full.get("total", 0)) / 1e6,
    )
