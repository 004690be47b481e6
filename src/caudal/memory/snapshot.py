"""Who holds what at one moment: the bytes that are charged, by holder, and what nobody has named.

For whoever decides while a run goes on. It compares; it moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caudal.core.units import Bytes
from caudal.memory import limits, meters, pressure, vram
from caudal.memory.pressure import Pressure


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Host memory at one moment, and the device where torch uses one.

    `holders` are bytes granted by name (`Budget.holders()`), largest first; `room` is what may still be taken
    under every limit, neighbours counted; `pressure` is the group's own where the kernel tells, else the
    machine's.
    """

    charged: Bytes
    holders: Mapping[str, Bytes]
    room: Bytes | None
    pressure: Pressure | None
    device: vram.Reading | None = None

    @property
    def unexplained(self) -> int:
        """Charged bytes that no holder has; below zero where holders have not touched all of theirs."""
        return self.charged - sum(self.holders.values())


def take(holders: Mapping[str, Bytes], beside: int = 0, root: Path = Path("/")) -> Snapshot:
    """Read every meter once: about a millisecond, more where forked processes share pages.

    `beside` bytes are held by a process that belongs to the run and is not below this one.
    """
    rows = sorted(holders.items(), key=lambda row: -row[1])
    try:
        room = limits.available_ram(root)
    except RuntimeError:
        room = None
    return Snapshot(
        charged=Bytes(meters.charged_bytes() + beside),
        holders=dict(rows),
        room=room,
        pressure=pressure.of_group(root) or pressure.of_machine(root),
        device=vram.reading(),
    )
