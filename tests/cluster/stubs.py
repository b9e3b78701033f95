"""Many nodes without an agent: what agents would write is written for them, soon after they are told something."""

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from basekeeper.cache.moments import timestamp
from tests.cluster.asking import APPLY, ask
from tests.cluster.fleet import CACHES, Fleet

Object = dict[str, Any]
_EVERY = 0.3
_WRITERS = 4
_MIB = 1024 * 1024


class Stubs:
    """Says for every node that its last pass ran under what it is told; as the agents' field manager."""

    def __init__(self, fleet: Fleet, nodes: Iterable[str]) -> None:
        """Make the nodes, each with an agent's pod."""
        self._fleet = fleet
        self.nodes = tuple(nodes)
        self._breakers: dict[str, str] = {}
        self._again: set[str] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stubs", daemon=True)
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(fleet.add_node, self.nodes))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def open_breaker(self, node: str, message: str) -> None:
        """Let a node say that an anomaly stops its removals."""
        with self._lock:
            self._breakers[node] = message
            self._again.add(node)

    def close_breaker(self, node: str) -> None:
        """Let it say that the anomaly is over."""
        with self._lock:
            del self._breakers[node]
            self._again.add(node)

    def _work(self) -> None:
        with ThreadPoolExecutor(_WRITERS) as pool:
            while not self._end.wait(_EVERY):
                there = self._fleet.caches()
                with self._lock:
                    again, self._again = self._again, set()
                told = [there[node] for node in self.nodes if node in there]
                list(
                    pool.map(self._say, (item for item in told if item["metadata"]["name"] in again or _is_news(item)))
                )

    def _say(self, cache: Object) -> None:
        node = cache["metadata"]["name"]
        content = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": node}}
        content["status"] = status(cache, self._breakers.get(node))
        path = f"{CACHES}/{node}/status?fieldManager=basekeeper-agent&force=true"
        ask(self._fleet.cluster, "PATCH", path, content, content_type=APPLY)


def _is_news(cache: Object) -> bool:
    return bool(cache.get("status", {}).get("observedGeneration") != cache["metadata"]["generation"])


def status(cache: Mapping[str, Any], breaker: str | None = None) -> Object:
    """What an agent says of a pass under what it is told."""
    now = timestamp(time.time())
    generation, spec = cache["metadata"]["generation"], cache.get("spec", {})
    told = "policy" in spec
    said = [
        ("Ready", "True", "PassEnded", "the last pass ended without failure"),
        ("PolicyApplied", *(("True", "Applied") if told else ("False", "NoPolicy")), ""),
        ("BreakerClosed", *(("True", "Closed", "") if breaker is None else ("False", "UsersVanished", breaker))),
        ("Holding", *(("False", "NothingHeld", "") if breaker is None else ("True", "UsersVanished", breaker))),
    ]
    conditions = [
        dict(zip(("type", "status", "reason", "message"), item, strict=True))
        | {"observedGeneration": generation, "lastTransitionTime": now}
        for item in said
    ]
    common = {
        "observedGeneration": generation,
        "heartbeatTime": now,
        "agentVersion": "stub",
        "conditions": conditions,
        "paths": {"instances": "/var/lib/nova/instances", "base": "/var/lib/nova/instances/_base"},
    }
    if not told:
        return common
    return common | {
        "policy": spec["policy"],
        "lastPass": {"time": now, "mode": spec["mode"], "outcome": "Clean" if breaker is None else "Held"},
        "cache": {"files": 20, "bytes": 20480 * _MIB, "reclaimableFiles": 2, "reclaimableBytes": 2048 * _MIB},
        "reclaimable": "2.0 GiB",
    }
