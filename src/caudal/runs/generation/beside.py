"""What a process holds beside its pictures: measured while no weight is there, and kept while some are.

Weights and work of a session are rows of its plan. Whoever measured the process again while they are there
would count them twice, and would plan a second picture otherwise than the first.
"""

from __future__ import annotations

from caudal.core.units import Bytes
from caudal.memory import vram as vram_meter
from caudal.memory.meters import charged_bytes
from caudal.runs.generation.plan import DRIVER_VRAM, GenerationPlan


class Beside:
    """Ask it for each plan; `promised` is the plan of the session that is there, or comes just now."""

    def __init__(self) -> None:
        self._ram = self._vram = 0

    def ram(self, promised: GenerationPlan | None) -> Bytes:
        """Bytes of RAM that are held beside the session.

        What a session was promised is its own, whether it is held at this moment or not; what is held beyond
        that is somebody else's and came later.
        """
        charged = int(charged_bytes())
        if promised is None:
            self._ram = charged
            return Bytes(charged)
        return Bytes(self._ram + max(0, charged - int(promised.memory.predicted("ram"))))

    def vram(self, promised: GenerationPlan | None) -> Bytes | None:
        """Bytes of the card that are free for a session; `None` without a card."""
        cards = vram_meter.devices()
        if not cards:
            return None
        free = int(cards[0].free)
        if promised is None:
            self._vram = free
            return Bytes(free)
        # What the driver takes when work begins is in every plan.
        ours = int(vram_meter.charged() or 0) + int(DRIVER_VRAM)
        return Bytes(min(self._vram, free + ours))
