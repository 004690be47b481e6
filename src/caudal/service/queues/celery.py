"""The queue through Celery and Redis: messages wake processes on any machine, and say nothing else.

Which job begins is decided by the store when a process is awake, so a message that is lost, or comes twice,
changes nothing. As long as jobs are in line, messages are sent again.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from caudal.core.messages import _
from caudal.service.queues.celery_settings import QUEUE, TASK, make_app
from caudal.service.queues.embedded import worker_process
from caudal.service.queues.kept import KeptProcess
from caudal.service.settings import Settings

_EXPIRES_SECONDS = 60
_AGAIN_SECONDS = 1.0
_END_SECONDS = 10.0


class Wakening:
    """Sends messages. Where the broker is away, it says so by giving `False`."""

    def __init__(self, settings: Settings) -> None:
        self._app = make_app(settings)

    def send(self, number: int = 1) -> bool:
        """Wake so many processes."""
        try:
            with (
                self._app.connection_for_write() as connection,
                self._app.amqp.Producer(connection) as producer,
            ):
                for _number in range(number):
                    self._app.send_task(
                        TASK, queue=QUEUE, expires=_EXPIRES_SECONDS, producer=producer, retry=False
                    )
        except Exception:  # kombu lets through what each transport raises
            return False
        return True

    def waiting(self) -> int | None:
        """How many messages nobody has taken yet; `None` where the broker is away."""
        try:
            with self._app.connection_for_read() as connection:
                return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)
        except Exception as error:
            missing = getattr(error, "code", None) == 404 or "NOT_FOUND" in str(error)
            return 0 if missing else None


class CeleryQueue:
    """See `base.Queue`. Beside the server runs a process that only keeps an eye on jobs."""

    def __init__(self, settings: Settings) -> None:
        self._wakening = Wakening(settings)
        self._keeper = worker_process(settings, "keeps")

    def start(self) -> None:
        """Start the process that keeps an eye."""
        self._keeper.start()

    def stop(self) -> None:
        """End it. Jobs go on: they belong to the machines that run them."""
        self._keeper.stop()

    def announce(self, job_id: str) -> None:
        """Wake a process; if the broker is away, the keeper does so later."""
        self._wakening.send()

    def trouble(self) -> str:
        """Whether the broker is away."""
        return "" if self._wakening.waiting() is not None else _("The broker does not answer.")


class CeleryHelper:
    """See `base.Helper`. Keeps a machine's Celery processes (`processes` of them) alive, and wakes them."""

    def __init__(self, settings: Settings, processes: int) -> None:
        self._wakening = Wakening(settings)
        self._next = 0.0
        self._kept = [_celery(settings, number) for number in range(processes)]
        for process in self._kept:
            process.start()

    def tend(self, in_line: int) -> None:
        """As long as more jobs are in line than messages, send some."""
        now = time.monotonic()
        if not in_line or now < self._next:
            return
        self._next = now + _AGAIN_SECONDS
        waiting = self._wakening.waiting()
        if waiting is not None and waiting < in_line:
            self._wakening.send(min(in_line - waiting, 10))

    def pids(self) -> list[int]:
        """The numbers of the Celery processes that run now."""
        return [pid for process in self._kept if (pid := process.pid) is not None]

    def take_no_more(self) -> None:
        """They wait for what they have begun, and then end."""
        for process in self._kept:
            process.ask_to_end()

    def close(self) -> None:
        """End the processes."""
        for process in self._kept:
            with suppress(OSError):
                process.stop(_END_SECONDS)


def _celery(settings: Settings, number: int) -> KeptProcess:
    name = f"{settings.worker_name}-{number}@{settings.worker_name}"
    return KeptProcess(
        [
            sys.executable, "-m", "celery", "--quiet", "--app", "caudal.service.queues.celery_app", "worker",
            "--pool", "prefork", "--concurrency", "1", "--prefetch-multiplier", "1", "--queues", QUEUE,
            "--hostname", name, "--without-gossip", "--without-mingle", "--loglevel", "WARNING",
        ],
        settings.environment(),
    )  # fmt: skip
