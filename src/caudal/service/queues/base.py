"""The contract of a queue: it brings jobs to workers, and holds no truth.

The store says which jobs are in line and who may take one; a queue only says that somebody should look. So it
may lose what it was told, say it twice, or be away: a job begins later then, once, and is not lost.
"""

from __future__ import annotations

from typing import Protocol


class Queue(Protocol):
    """The server's side."""

    def start(self) -> None:
        """Start what this side needs beside the server, and keep it alive from now on."""

    def stop(self) -> None:
        """End that, and the jobs of this machine if they are run by it: they go back in line with a
        checkpoint. Returns when all of it is down.
        """

    def announce(self, job_id: str) -> None:
        """There is a job in line. Never fails; what cannot be said now is said again later."""

    def trouble(self) -> str:
        """What is wrong with it, as a sentence; empty where nothing is."""


class Helper(Protocol):
    """The side of a machine that takes jobs, called by its worker loop."""

    def tend(self, in_line: int) -> None:
        """Called a few times a second, with the number of jobs in line (some hundreds at most)."""

    def take_no_more(self) -> None:
        """Take no other job from now on; returns at once."""

    def close(self) -> None:
        """End what it started; the jobs of this machine have ended already."""
