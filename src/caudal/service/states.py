"""The states of a job and the moves between them; the only such drawing.

                        ┌──────────────────────────── retry() ◄───────────────┐
                        ▼                                                     │
    submit() ──► queued ──────► starting ──────► running ──┬──► succeeded     │
                  │ ▲ ▲           │   │           │  │ │   ├──► failed ───────┤
                  │ │ └───────────┴───│───────────┘  │ │   │                  │
                  │ │  (worker stops, │              │ │   │                  │
                  │ │   or was lost)  ├──► waiting ◄─┘ │   │                  │
                  │ └─────────────────│────── │        │   │                  │
                  │                   │       │        │   │                  │
                  │          cancel() ▼       │        ▼   │                  │
                  │             cancelling ◄──│─────── ┘   │                  │
                  ▼                   │       ▼            │                  │
              cancelled ◄─────────────┴───────┘            │                  │
                  └────────────────────────────────────────│──────────────────┘
    starting, running, cancelling ◄──► unreachable ────────┘ (its supervisor is not heard of)

A move is one `UPDATE … WHERE state = … AND fence = …`: who comes second changes nothing. `succeeded` is the
end of all; `failed` and `cancelled` are left only when a user asks for it. This file moves nothing.
"""

from __future__ import annotations

from typing import Literal, get_args

State = Literal[
    "queued",
    "starting",
    "running",
    "waiting",
    "cancelling",
    "unreachable",
    "succeeded",
    "failed",
    "cancelled",
]
Reason = Literal[
    "oom_host",
    "oom_device",
    "oom_shm",
    "disk_full",
    "does_not_fit",
    "timeout",
    "worker_lost",
    "killed",
    "data",
    "error",
]

STATES: tuple[State, ...] = get_args(State)
REASONS: tuple[Reason, ...] = get_args(Reason)
ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
ACTIVE: frozenset[State] = frozenset({"starting", "running", "cancelling", "unreachable"})
"""Those in which an attempt is open."""

MOVES: dict[State, frozenset[State]] = {
    "queued": frozenset({"starting", "cancelled", "failed"}),
    "starting": frozenset(
        {"running", "cancelling", "unreachable", "queued", "waiting", "succeeded", "failed"}
    ),
    "running": frozenset({"cancelling", "unreachable", "queued", "waiting", "succeeded", "failed"}),
    "waiting": frozenset({"queued", "cancelled"}),
    "cancelling": frozenset({"cancelled", "succeeded", "unreachable"}),
    "unreachable": frozenset(
        {"running", "cancelling", "queued", "waiting", "succeeded", "failed", "cancelled"}
    ),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}


def sources(to: State) -> frozenset[State]:
    """The states from which a job may come to `to`."""
    return frozenset(state for state, targets in MOVES.items() if to in targets)
