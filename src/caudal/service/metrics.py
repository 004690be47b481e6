"""Figures for Prometheus: requests by address and status, streams, jobs by state. One registry an app."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class _Jobs(Collector):
    """Counted when asked for, not before."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def describe(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("caudal_jobs", "Jobs by state", labels=["state"])

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("caudal_jobs", "Jobs by state", labels=["state"])
        for state, number in sorted(self._counts().items()):
            family.add_metric([str(state)], number)
        yield family


class Metrics:
    """What is counted."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Histogram(
            "caudal_request_seconds",
            "Time to answer, by address and status",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.streams = Gauge("caudal_event_streams", "Open event streams", registry=self._registry)
        self.uploaded = Counter("caudal_uploaded_bytes", "Bytes taken by uploads", registry=self._registry)
        self.refused = Counter("caudal_refused_keys", "Requests without a good key", registry=self._registry)
        self._registry.register(_Jobs(counts))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._requests.labels(known, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
