"""How jobs come to workers: `embedded` without a broker, `celery` through Redis. The store is the truth."""

from __future__ import annotations

from caudal.core.errors import UsageError
from caudal.core.messages import _
from caudal.service.queues.base import Helper, Queue
from caudal.service.settings import Settings

__all__ = ["Helper", "Queue", "open_helper", "open_queue"]


def open_queue(settings: Settings) -> Queue:
    """The server's side of the queue that the settings name; nothing is started yet.

    Raises:
        UsageError: Celery without a broker, or without being installed.
    """
    if settings.queue == "celery":
        _check_celery(settings)
        from caudal.service.queues.celery import CeleryQueue

        return CeleryQueue(settings)
    from caudal.service.queues.embedded import EmbeddedQueue

    return EmbeddedQueue(settings)


def open_helper(settings: Settings, minds_machine: bool) -> Helper:
    """The side of a worker; `minds_machine` where Celery's processes are to run beside it.

    Raises:
        UsageError: as `open_queue`.
    """
    if settings.queue == "celery":
        _check_celery(settings)
        from caudal.service.queues.celery import CeleryHelper

        return CeleryHelper(settings, settings.celery_workers if minds_machine else 0)
    from caudal.service.queues.embedded import NoHelp

    return NoHelp()


def _check_celery(settings: Settings) -> None:
    if not settings.broker_url():
        raise UsageError(_("The celery queue needs a broker."), _("Give one with --broker redis://…."))
    try:
        import celery  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise UsageError(
            _("Celery is not installed."), _("Install it: pip install 'celery[redis]'.")
        ) from None
