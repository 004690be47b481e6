"""How Celery is set up, so that it neither takes a job twice nor takes one from its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caudal.service.settings import Settings

if TYPE_CHECKING:
    from celery import Celery  # type: ignore[import-untyped]

TASK = "caudal.wake"
QUEUE = "caudal"
_MARGIN_SECONDS = 3600.0
_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


def make_app(settings: Settings) -> Celery:
    """The Celery application of a service; it keeps no results."""
    from celery import Celery

    app = Celery("caudal", broker=settings.broker_url(), set_as_current=False)
    # A message that is not acknowledged for so long is given to another: never while a job may still run.
    visible = int(settings.longest_seconds + _MARGIN_SECONDS)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_acks_on_failure_or_timeout=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_pool="prefork",
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_serializer="json",
        accept_content=["json"],
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": visible,
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_timeout": _ANSWER_SECONDS,
            "socket_keepalive": True,
            "max_retries": 0,
            "retry_on_timeout": False,
        },
        result_backend_transport_options={"visibility_timeout": visible},
        visibility_timeout=visible,
    )
    return app
