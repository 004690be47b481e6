"""What a Celery process runs: it claims the job whose turn it is, starts its supervisor, and waits for it.

The supervisor leads a session of its own: it goes on where Celery or its broker ends. Loaded by
`celery --app`, with the settings in the environment.
"""

from __future__ import annotations

import os

from caudal.service.machine import start_next, this_machine
from caudal.service.queues.celery_settings import TASK, make_app
from caudal.service.settings import Settings
from caudal.service.store import open_store

settings = Settings.from_environment()
app = make_app(settings)


@app.task(name=TASK)  # type: ignore[untyped-decorator]
def wake() -> None:
    """Somebody says that there is a job in line; there may be none, or none that fits now."""
    with open_store(settings, migrate=False) as store:
        supervisor = start_next(store, settings, this_machine(settings))
    if supervisor is not None:
        os.waitpid(supervisor, 0)
