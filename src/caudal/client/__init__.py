"""The HTTP client of the service: `Client`, and `AsyncClient` with the same methods to be awaited.

Both find the service of this machine by themselves: by `CAUDAL_URL` and `CAUDAL_TOKEN`, else by what a
running `caudal serve` left in its state folder. A request that the network lost is sent again under the same
name (`Idempotency-Key`), so that nothing is done twice. Knows nothing of how jobs are run.
"""

from __future__ import annotations

from caudal.client.awaited import AsyncClient
from caudal.client.records import (
    ENDED,
    Dataset,
    Event,
    Job,
    Page,
    Plan,
    Project,
    Sent,
    Status,
    Wrong,
)
from caudal.client.sync import Client

__all__ = [
    "ENDED", "AsyncClient", "Client", "Dataset", "Event", "Job", "Page", "Plan", "Project", "Sent", "Status",
    "Wrong",
]  # fmt: skip
