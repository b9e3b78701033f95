"""What the controller counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from basekeeper import __version__
from basekeeper.resources.image_cache_policy import NodeState


class Metrics:
    """The controller's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        build = Gauge("basekeeper_build_info", "The release that runs.", ["version"], registry=r)
        build.labels(__version__).set(1)
        self.nodes = Gauge("basekeeper_nodes", "Nodes that follow a policy, by their state.", ["state"], registry=r)
        self.reconcile_seconds = Histogram(
            "basekeeper_reconcile_duration_seconds", "How long it took to compute and write everything.", registry=r
        )
        self.resync = Gauge(
            "basekeeper_last_list_timestamp_seconds", "When everything was last listed anew.", registry=r
        )
        self.watch_up = Gauge("basekeeper_watch_up", "1 while the watches run.", registry=r)
        self._requests = Counter(
            "basekeeper_api_requests", "Requests to the API server.", ["method", "code"], registry=r
        )
        for state in NodeState:
            self.nodes.labels(state.value)

    def count_request(self, method: str, code: str) -> None:
        """Count one request to the API server."""
        self._requests.labels(method, code).inc()
