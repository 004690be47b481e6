"""Gives an attempt its supervisor: a copy of this process that leads a session of its own.

A copy, because loading a supervisor's libraries anew takes most of the time between asking and running. It
outlives whoever made it. Only for a process with one thread.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from pathlib import Path

from caudal.service.records import Attempt
from caudal.service.settings import Settings
from caudal.service.store import Store

_MOST_FILES = 65536


def start_supervisor(store: Store, settings: Settings, attempt: Attempt) -> int:
    """Start it; its process number. Whoever calls has to wait for it some time.

    Raises:
        OSError: there is no room for its log, or for another process.
    """
    folder = settings.job_folder(attempt.job_id)
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "supervisor.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    store.close()  # a connection is not for two processes
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        number = os.fork()
        if number:
            return number
        _become(settings, attempt, log)
    finally:
        os.close(log)
    raise AssertionError("unreachable")


def _become(settings: Settings, attempt: Attempt, log: int) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        for signals in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(signals, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        # What is open here belongs to whoever was copied: locks, pipes on whose end somebody waits.
        os.closerange(3, min(_MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
        Path("/proc/self/comm").write_text("caudal-attempt")
        from caudal.service.attempt import supervise

        supervise(attempt.id, settings)
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)
