"""What an agent counts. No label has a node, file or image: the scrape adds the node."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from basekeeper import __version__
from basekeeper.cache.acts import Action
from basekeeper.cache.report import Outcome, Report

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The agent's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        build = Gauge("basekeeper_build_info", "The release that runs.", ["version"], registry=r)
        build.labels(__version__).set(1)
        self._passes = Counter("basekeeper_passes", "Passes, by how they ended.", ["outcome"], registry=r)
        self._seconds = Histogram(
            "basekeeper_pass_duration_seconds", "How long passes took.", ["phase"], buckets=_BUCKETS, registry=r
        )
        self._success = Gauge(
            "basekeeper_last_success_timestamp_seconds", "When a pass last ended without failure.", registry=r
        )
        self._acts = Counter("basekeeper_files_acted_on", "Files that passes acted on.", ["action"], registry=r)
        self._reclaimed = Counter("basekeeper_reclaimed_bytes", "Bytes that purges have freed.", registry=r)
        self._reclaimable = Gauge("basekeeper_reclaimable_bytes", "Bytes that may go now.", registry=r)
        self._breaker = Gauge("basekeeper_breaker_open", "1 while an anomaly stops removals.", registry=r)
        self.watch_up = Gauge("basekeeper_watch_up", "1 while the watch on the own object runs.", registry=r)
        self.policy_generation = Gauge(
            "basekeeper_policy_generation_applied",
            "Generation of the policy that the last pass ran under; 0: none.",
            registry=r,
        )
        self._requests = Counter(
            "basekeeper_api_requests", "Requests to the API server.", ["method", "code"], registry=r
        )
        for outcome in Outcome:
            self._passes.labels(outcome.value)
        for action in Action:
            self._acts.labels(action.value)

    def count_request(self, method: str, code: str) -> None:
        """Count one request to the API server."""
        self._requests.labels(method, code).inc()

    def count_pass(self, report: Report) -> None:
        """Count one pass."""
        self._passes.labels(report.outcome.value).inc()
        if report.error:  # it says nothing of the cache, nor how long its phases took
            return
        for phase in ("observe", "judge", "act"):
            self._seconds.labels(phase).observe(getattr(report.seconds, phase))
        if report.outcome is not Outcome.FAILED:
            self._success.set(report.time)
        for row in report.rows:
            if row.action is not None:
                self._acts.labels(row.action.value).inc()
        self._reclaimed.inc(report.reclaimed)
        self._reclaimable.set(report.reclaimable)
        self._breaker.set(bool(report.anomalies))
