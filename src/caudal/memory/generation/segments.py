"""What the caching allocator of a device takes for tensors that come one after the other and stay.

torch's takes segments from the driver and cuts them: 2 MiB for tensors up to 1 MiB, 20 MiB for those below
10, and for larger ones a segment of their own in steps of 2 MiB. Of a network with hundreds of layers the
remainders are some per cent of its weights, which a card that is nearly full does not have.
"""

from __future__ import annotations

from collections.abc import Iterable

from caudal.core.units import MIB, Bytes

UNIT, SMALL, SMALL_SEGMENT, MIDDLING, MIDDLING_SEGMENT, STEP = 512, MIB, 2 * MIB, 10 * MIB, 20 * MIB, 2 * MIB


def segment_bytes(tensors: Iterable[int]) -> Bytes:
    """Bytes of all segments for tensors of so many bytes, in their order; nothing is there before."""
    taken = 0
    left: dict[int, list[int]] = {SMALL_SEGMENT: [], MIDDLING_SEGMENT: []}  # free ends of segments
    for nbytes in tensors:
        size = -(-max(nbytes, 1) // UNIT) * UNIT
        if size >= MIDDLING:
            taken += -(-size // STEP) * STEP
            continue
        segment = SMALL_SEGMENT if size <= SMALL else MIDDLING_SEGMENT
        ends = left[segment]
        fitting = [end for end in ends if end >= size]
        if fitting:
            best = min(fitting)
            ends.remove(best)
        else:
            best = segment
            taken += segment
        rest = best - size
        if rest >= UNIT if segment == SMALL_SEGMENT else rest > SMALL:
            ends.append(rest)
    return Bytes(taken)
