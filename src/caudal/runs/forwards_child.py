"""`python -m caudal.runs.forwards_child MODEL DEVICE POSITION RAM [MOST_PX]`: see `forwards`.

It says what it holds with the model, and then a line for each inference.
"""

from __future__ import annotations

import sys
from pathlib import Path

from caudal.core.units import Bytes
from caudal.memory.levers.weights import Weights
from caudal.memory.meters import charged_bytes
from caudal.runs.forwards import measure
from caudal.runs.loading import open_model
from caudal.training.retry import ran_out


def main() -> None:
    """Open the model as the parent has it, and measure until the next inference would not fit."""
    path, device, position, ram, *most = sys.argv[1:]
    loaded = open_model(Path(path), device, int(position))
    base, mapped = charged_bytes(), loaded.weights == Weights.MAPPED
    print(int(base), flush=True)
    room = Bytes(int(ram) - base)
    try:
        most_px = int(most[0]) if most else None
        for found in measure(loaded.forward(0), loaded.card.bands, "uint8", mapped, room, most_px=most_px):
            print(found.model_dump_json(), flush=True)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise  # else what was said so far counts, as if the kernel had ended this process


if __name__ == "__main__":
    main()
