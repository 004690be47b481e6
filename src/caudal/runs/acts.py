"""What was done about memory while a run went on, in words: for the table at its end and for its report."""

from __future__ import annotations

from caudal.core.events import Event, MemoryRelieved, RunKilled
from caudal.core.messages import _
from caudal.core.units import Bytes


def in_words(event: Event) -> str:
    """One line on an act, with bytes; empty for events that are none."""
    if isinstance(event, MemoryRelieved):
        return _("{act}: {why}; {pool} {before}, then {after}").format(
            act=event.act,
            why=event.why,
            pool=event.pool,
            before=Bytes(event.before),
            after=Bytes(event.after),
        )
    if isinstance(event, RunKilled) and event.goes_on:
        return _("ended for want of memory ({reason}) at {peak}, gone on with a smaller plan").format(
            reason=event.reason, peak=Bytes(event.peak_bytes)
        )
    return ""


def end_in_words(event: RunKilled) -> str:
    """One line on an end after which a run did not go on by itself."""
    return _("ended from outside ({reason}, signal {signal}) at {peak}").format(
        reason=event.reason, signal=event.signal, peak=Bytes(event.peak_bytes)
    )
