"""The controller: watches policies, nodes, agents' pods and nodes' objects, and writes what follows from them.

One loop computes everything from the store, a moment after something changed and at least every half minute, and
writes the difference: first what makes nodes safer, then what makes them more aggressive. Everything is listed anew
whenever the watch has listed, which it does after each disconnection, and every hour: deletions that nobody saw.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from basekeeper.cluster import kinds
from basekeeper.cluster.api import Api, ApiAway, ApiError, NotFound, Resource
from basekeeper.cluster.backoff import Backoff
from basekeeper.cluster.connection import Connection
from basekeeper.cluster.probes import Probes
from basekeeper.cluster.watch import Subject, Watch
from basekeeper.resources.image_cache_policy import DisagreementKind, NodeState
from basekeeper.resources.kinds import GROUP
from basekeeper.resources.node_image_cache import NodeSpec

from . import agreement, rollup, snapshots
from .desired import Desired, Wanted, desired, is_there
from .metrics import Metrics
from .snapshots import NodeCache, Policy
from .store import Kind, Store, World
from .writers import write_all

_log = logging.getLogger(__name__)
FIELD_MANAGER = "basekeeper-controller"
_QUIET = 0.3
"""Seconds after a change in which others that belong to it may come."""
_SHARE = 20
"""A turn is followed by a pause of so many times the processor time that it took, so that this is a small share."""
_LONGEST_PAUSE = 5.0
_AT_LEAST_EVERY = 30.0
_STATUS_EVERY = 30.0
"""Seconds between two writes of one policy's status."""
_STATUS_SETTLES = 7.0
"""Seconds after a new generation in which most nodes of a small cloud report: the first status can tell of them."""
_LIST_EVERY = 3600.0
_TO_END = 5.0
"""Seconds for what is being written when the controller is told to stop: a server that answers at all takes less."""
_STUCK_AFTER = 600.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What the controller is started with."""

    namespace: str
    """Where the agents' pods are."""
    agent_selector: str
    """The labels of the agents' pods."""
    listen: str


class Controller:
    """The controller."""

    def __init__(self, setup: Setup, connection: Connection) -> None:
        self._setup = setup
        self._metrics = Metrics()
        self._api = Api(connection, FIELD_MANAGER, self._metrics.count_request)
        self._wake = threading.Condition()
        self._dirty = True
        self._list_at = time.monotonic()
        self._stopping = threading.Event()
        self._store = Store(self._changed)
        self._listed = False
        self._beat = time.monotonic()
        self._written: dict[str, float] = {}
        self._first_seen: dict[tuple[str, int], float] = {}
        """When each policy's present generation was first seen, by uid and generation."""
        self._unwritten: dict[str, float] = {}
        """Since when each policy's status, by the policy's name, has not said what it should."""
        self._trouble: str | None = None
        pods = kinds.pods(setup.namespace)
        subjects = [
            Subject(kinds.POLICIES, self._store.policies.heard),
            Subject(kinds.NODE_CACHES, self._store.caches.heard),
            Subject(kinds.NODES, self._store.nodes.heard),
            Subject(pods, self._store.pods.heard, label_selector=setup.agent_selector),
        ]
        self._watch = Watch(connection, self._api, subjects, f"{GROUP}/unused", on_listed=self._list_soon)
        self._metrics.watch_up.set_function(lambda: self._watch.up)
        self._metrics.lag.set_function(self._lag)
        self._loop = threading.Thread(target=self._work, name="reconcile", daemon=True)
        self._probes = Probes(setup.listen, self._wrong, self._not_ready, self._metrics.registry)

    @property
    def port(self) -> int:
        """Where the probes listen."""
        return self._probes.port

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        _log.info("controller started", extra={"namespace": self._setup.namespace})
        self._probes.start()
        self._watch.start()
        self._loop.start()
        while not stop.wait(1.0) and self._loop.is_alive():
            pass
        _log.info("stopping: what is being written is written")
        until = time.monotonic() + _TO_END
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        self._watch.stop()
        self._loop.join(max(0.0, until - time.monotonic()))
        self._probes.stop()

    def _changed(self) -> None:
        with self._wake:
            self._dirty = True
            self._wake.notify_all()

    def _list_soon(self) -> None:
        with self._wake:
            self._list_at = time.monotonic()
            self._wake.notify_all()

    # --- the loop ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        backoff = Backoff(1.0, 30.0)
        while not self._stopping.is_set():
            self._beat = began = time.monotonic()
            used = time.thread_time()
            try:
                if began >= self._list_at:
                    self._list()
                if self._listed:
                    self._reconcile()
                self._trouble = None
                backoff.reset()
                pause = min(max(_QUIET, (time.thread_time() - used) * _SHARE), _LONGEST_PAUSE)
            except ApiError as error:
                self._trouble = str(error)
                pause = backoff.failed()
                _log.warning("%s; trying again in %.0f s", error, pause)
            except Exception as error:  # noqa: BLE001 (one object that nobody foresaw must not leave all nodes alone)
                self._trouble = f"{type(error).__name__}: {error}"
                pause = backoff.failed()
                _log.exception("this turn failed in a way that nobody foresaw; trying again in %.0f s", pause)
            self._stopping.wait(pause)
            self._sleep(began)

    def _sleep(self, began: float) -> None:
        """Sleep until something changed, or it is time anyway; `began` is when the last turn began."""
        until = min([time.monotonic() + _AT_LEAST_EVERY, *self._statuses_due(began)])
        with self._wake:
            while not self._stopping.is_set() and not self._dirty and self._trouble is None:
                wait = min(until, self._list_at) - time.monotonic()
                if wait <= 0:
                    return
                self._wake.wait(wait)

    def _statuses_due(self, began: float) -> Iterator[float]:
        """When statuses may be written that could not be in the turn that `began` then."""
        due = [at + _STATUS_EVERY for at in self._written.values()]
        due += [at + _STATUS_SETTLES for at in self._first_seen.values()]
        return (at for at in due if at > began)

    def _list(self) -> None:
        """List everything anew. Raises ApiError."""
        selector = {"labelSelector": self._setup.agent_selector}
        self._list_kind(kinds.NODES, self._store.nodes)
        self._list_kind(kinds.pods(self._setup.namespace), self._store.pods, **selector)
        self._list_kind(kinds.NODE_CACHES, self._store.caches)
        self._list_kind(kinds.POLICIES, self._store.policies)
        self._listed = True
        self._list_at = time.monotonic() + _LIST_EVERY
        self._metrics.listed.set_to_current_time()

    def _list_kind(self, resource: Resource, kind: Kind[Any], **selectors: str) -> None:
        found: dict[str, Any] = {}
        version = 0
        for page in self._api.pages(resource, **selectors):
            version = version or snapshots.version(page["metadata"])
            read = (kind.read(item) for item in page.get("items") or ())
            found |= {item.name: item for item in read if item is not None}
        kind.listed(found, version)

    def _reconcile(self) -> None:
        """Compute everything, and write the difference. Raises ApiError once everything was tried."""
        with self._wake:
            self._dirty = False
        with self._metrics.reconcile_seconds.time():
            world = self._store.world()
            aim = desired(world, time.time())
            failures = self._write_nodes(world, aim)
            after = self._store.world()
            failures += self._write_statuses(after, aim if after == world else desired(after, time.time()))
        if failures:
            with self._wake:
                self._dirty = True
            raise failures[0]

    def _write_nodes(self, world: World, aim: Desired) -> list[ApiError]:
        """Bring the nodes' objects to what they should be: what is safer first."""
        changed = [item for name, item in aim.wanted.items() if not is_there(world.caches.get(name), item)]
        safer = [item for item in changed if not item.more_aggressive]
        bolder = [item for item in changed if item.more_aggressive]
        gone = [world.caches[name] for name in aim.gone]
        failures = self._all(self._write_node, safer)
        failures += self._all(self._delete_node, gone)
        if any(isinstance(failure, ApiAway) for failure in failures):
            return failures  # what is safer has not reached everybody: nothing bolder goes out
        return failures + self._all(self._write_node, bolder)

    def _all(self, write: Callable[[Any], None], items: Iterable[Any]) -> list[ApiError]:
        return write_all(write, items, self._stopping, self._live)

    def _live(self) -> None:
        self._beat = time.monotonic()

    def _write_node(self, wanted: Wanted) -> None:
        node = wanted.node
        owner = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}
        content = {"metadata": {"ownerReferences": [owner]}, "spec": _told(wanted.spec)}
        metadata = self._api.apply(kinds.NODE_CACHES, node.name, content)
        told = {"mode": wanted.spec.mode, "policy": wanted.spec.policy.name if wanted.spec.policy else None}
        _log.info("told %s", node.name, extra={**told, "waiting": wanted.waiting or None})
        self._watch.expect_event()
        before = self._store.caches.all().get(node.name)
        made = self._store.caches.read({"metadata": metadata, "spec": content["spec"]})
        if made is not None:
            same = before is not None and before.uid == made.uid
            self._store.caches.wrote(replace(made, said=before.said) if same and before is not None else made)

    def _delete_node(self, cache: NodeCache) -> None:
        self._api.delete(kinds.NODE_CACHES, cache.name, cache.uid)
        _log.info("deleted the object of %s: its node is gone, or its agent for a day", cache.name)
        self._store.caches.deleted(cache.name)

    def _write_statuses(self, world: World, aim: Desired) -> list[ApiError]:
        """Write the policies' statuses that changed, each at most every half minute."""
        now = time.monotonic()
        wanted = rollup.statuses(world, aim, time.time())
        self._show(world, aim)
        self._written = {name: at for name, at in self._written.items() if name in wanted and now - at < _STATUS_EVERY}
        generations = {(policy.uid, policy.generation) for policy in world.policies.values()}
        self._first_seen = {key: self._first_seen.get(key, now) for key in generations}
        other = {name for name, policy in world.policies.items() if not rollup.unchanged(policy.status, wanted[name])}
        self._unwritten = {name: self._unwritten.get(name, now) for name in other}
        changed = [
            (policy, wanted[name])
            for name, policy in world.policies.items()
            if name in other
            and name not in self._written
            and now - self._first_seen[policy.uid, policy.generation] >= _STATUS_SETTLES
        ]
        return self._all(self._write_status, changed)

    def _show(self, world: World, aim: Desired) -> None:
        """Show in the metrics how things stand."""
        found = rollup.states(world, aim, time.time())
        for state in NodeState:
            self._metrics.nodes.labels(state).set(found[state])
        kinds_of = Counter(item.kind for item in agreement.compare(world.caches).disagreements)
        for kind in DisagreementKind:
            self._metrics.disagreements.labels(kind).set(kinds_of[kind])
        self._metrics.policies.set(len(world.policies))
        self._metrics.waiting.set(sum(wanted.waiting for wanted in aim.wanted.values()))
        self._metrics.stopped.set(any(wave.stopped is not None for wave in aim.waves.values()))

    def _lag(self) -> float:
        """For how long the status that lags most has not said what it should."""
        since = min(self._unwritten.copy().values(), default=None)
        return 0.0 if since is None else time.monotonic() - since

    def _write_status(self, item: tuple[Policy, dict[str, Any]]) -> None:
        policy, status = item
        try:
            metadata = self._api.apply(kinds.POLICIES, policy.name, {"status": status}, subresource="status")
        except NotFound:
            _log.info("the status of %s is not written: it has been deleted", policy.name)
            return
        self._written[policy.name] = time.monotonic()
        self._unwritten.pop(policy.name, None)
        self._watch.expect_event()
        version = snapshots.version(metadata)
        if metadata.get("uid") == policy.uid and int(metadata.get("generation") or 0) == policy.generation:
            self._store.policies.wrote(replace(policy, version=version, status=status))

    # --- probes ------------------------------------------------------------------------------------------------

    def _wrong(self) -> str | None:
        if self._loop.ident is not None and not self._loop.is_alive() and not self._stopping.is_set():
            return "the loop has ended"
        silent = time.monotonic() - self._beat
        return f"no sign of life from the loop for {silent:.0f} s" if silent > _STUCK_AFTER else None

    def _not_ready(self) -> str | None:
        if not self._listed:
            return self._trouble or "nothing has been listed yet"
        if not self._watch.up:
            return "the watches are down"
        return self._trouble


def _told(spec: NodeSpec) -> dict[str, Any]:
    """A spec as the object has it."""
    return {} if spec.policy is None else spec.model_dump(mode="json", by_alias=True, exclude_none=True)
