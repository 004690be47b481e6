"""What this machine has, what each meter sees, and what to mend.

One file a subject; each returns facts, and none changes anything. How they are shown is the terminal's.
"""

from __future__ import annotations

from caudal.runs.doctor import device, memory, settings, system
from caudal.runs.doctor.fact import Fact

__all__ = ["Fact", "examine"]


def examine() -> list[Fact]:
    """Look at everything; takes as long as importing torch."""
    return [
        *system.machine(),
        *memory.limits_of_ram(),
        *memory.state(),
        *settings.of_process(),
        *settings.of_kernel(),
        *device.examine(),
        *system.disk(),
        *system.software(),
    ]
