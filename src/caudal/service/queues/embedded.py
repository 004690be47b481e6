"""The queue without a broker: one worker process beside the server looks into the store by itself."""

from __future__ import annotations

import os
import sys

from caudal.core.messages import _
from caudal.service.queues.kept import KeptProcess
from caudal.service.settings import Settings

PARENT = "CAUDAL_SERVICE_PARENT"
"""The number of the server that started a worker; the worker ends when that is no longer its parent."""

_MANY_FAILURES = 3


def worker_process(settings: Settings, role: str) -> KeptProcess:
    """A worker process of a server, in one of the roles of `worker.py`."""
    return KeptProcess(
        [sys.executable, "-m", "caudal.service.worker", role],
        settings.environment() | {PARENT: str(os.getpid())},
    )


class EmbeddedQueue:
    """See `base.Queue`."""

    def __init__(self, settings: Settings) -> None:
        self._worker = worker_process(settings, "takes")

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def stop(self) -> None:
        """End it, and the jobs of this machine go back in line."""
        self._worker.stop()

    def announce(self, job_id: str) -> None:
        """Nothing: the worker looks five times a second."""

    def trouble(self) -> str:
        """Whether the worker cannot be kept alive."""
        if self._worker.failures >= _MANY_FAILURES:
            return _("The worker process ends again and again.")
        return ""


class NoHelp:
    """See `base.Helper`: the worker takes jobs by itself."""

    def tend(self, in_line: int) -> None:
        """Nothing."""

    def take_no_more(self) -> None:
        """Nothing: the worker has stopped by itself."""

    def close(self) -> None:
        """Nothing."""
