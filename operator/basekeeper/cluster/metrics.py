"""What both programs count, and how they say it: a registry of their own, every known label value there from the start.

A value that appears with its first event has no increase to show: `rate()` would miss that event. So whatever can be
counted is there as 0. `docs/metrics.md` is compared with these registries; the help text is the meaning it shows.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from basekeeper import __version__

Labels = Mapping[str, Iterable[str]]
"""The names of labels, each with all values that it can have."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Buckets for what takes from a moment to minutes."""
Family = TypeVar("Family", Counter, Gauge, Histogram)


class ProgramMetrics:
    """The metrics of one program."""

    def __init__(self, watches: str) -> None:
        """`watches` says what the program watches."""
        # Without a series beside each counter that tells when the process started: one for all of them is enough.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        release = self.gauge("basekeeper_build_info", "1; `version` is the release", {"version": [__version__]})
        release.labels(__version__).set(1)
        # Beside process_start_time_seconds: every exporter has that, and a rule over all of them is dear.
        self.gauge("basekeeper_start_timestamp_seconds", "when the program was started").set_to_current_time()
        self.watch_up = self.gauge("basekeeper_watch_up", f"1 while {watches}")
        self._requests = Counter(
            "basekeeper_api_requests_total",
            "requests to the API server, but for the watch's; `code` is the HTTP status, `error` where none came",
            ["method", "code"],
            registry=self.registry,
        )

    def counter(self, name: str, meaning: str, labels: Labels | None = None) -> Counter:
        """A new counter, at 0."""
        return _begun(Counter(name, meaning, list(labels or ()), registry=self.registry), labels)

    def gauge(self, name: str, meaning: str, labels: Labels | None = None) -> Gauge:
        """A new gauge, at 0."""
        return _begun(Gauge(name, meaning, list(labels or ()), registry=self.registry), labels)

    def histogram(self, name: str, meaning: str, labels: Labels | None = None) -> Histogram:
        """A new histogram of seconds, empty."""
        return _begun(Histogram(name, meaning, list(labels or ()), buckets=SECONDS, registry=self.registry), labels)

    def count_request(self, method: str, code: str) -> None:
        """Count one request to the API server."""
        self._requests.labels(method, code).inc()


def _begun(family: Family, labels: Labels | None) -> Family:
    """The same, with every combination of its labels' values."""
    for values in product(*labels.values()) if labels else ():
        family.labels(*values)
    return family
