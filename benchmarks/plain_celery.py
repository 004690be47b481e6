"""The smallest Celery application: what a task costs that only answers. Run by `service_start.py`."""

from __future__ import annotations

import os

from celery import Celery  # type: ignore[import-untyped]

URL = os.environ.get("CAUDAL_PLAIN_CELERY", "")
app = Celery("plain", broker=URL, backend=URL)
app.conf.update(worker_pool="prefork", worker_concurrency=1, worker_prefetch_multiplier=1)


@app.task  # type: ignore[untyped-decorator]
def answer(number: int) -> int:
    """What it was given."""
    return number
