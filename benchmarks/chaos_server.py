"""A server without its web side, to be killed: starts the queue that its settings name, and waits."""

from __future__ import annotations

import signal
import sys

from caudal.service.queues import open_queue
from caudal.service.settings import Settings
from caudal.service.store import open_store


def main() -> None:
    settings = Settings.from_environment()
    open_store(settings).close()
    queue = open_queue(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    queue.start()
    print("up", flush=True)
    try:
        signal.pause()
    finally:
        queue.stop()


if __name__ == "__main__":
    main()
