"""What this node is told to do: its own `NodeImageCache`, read before every pass; the last one while the API is away.

An answer of the API server is obeyed: no object, one that is being deleted, or one without a policy, means stop, and
is remembered as that. Only when the server cannot be asked does the last accepted spec count, for a week as it is,
after that as Audit. The ledger keeps it; a lost ledger means that nothing was ever told.
"""

import copy
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from basekeeper.cache import ledger_file, settings
from basekeeper.cache.anomalies import CLOCK_TOLERANCE
from basekeeper.cache.ledger import Accepted, LedgerError
from basekeeper.cache.settings import Mode, Policy
from basekeeper.cluster.api import Api, ApiAway, ApiRefused, NotFound
from basekeeper.cluster.kinds import NODE_CACHES
from basekeeper.resources import node_settings
from basekeeper.resources.conditions import NodeCondition, Said, Status, Why
from basekeeper.resources.node_image_cache import NodeSpec, Origin

_log = logging.getLogger(__name__)
MAX_AGE = 7 * 24 * settings.HOUR
"""Seconds since the API server last confirmed a spec, after which it acts as Audit."""
IDLE_INTERVAL = 40 * settings.MINUTE
"""Seconds between looks at the own object while no policy tells an interval."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do now."""

    policy: Policy | None
    """None: make no pass."""
    applied: Said
    """The condition PolicyApplied, if a pass is made and ends."""
    interval: float = IDLE_INTERVAL
    generation: int | None = None
    """Of the object that tells this; None: there is no object, or its state is not known."""
    origin: Origin | None = None
    spec: Any = None
    """The settings as they were told: a status leaves them their room."""
    found: dict[str, Any] | None = None
    """The object as the server has it now; None: it could not be read."""
    gone: bool = False
    """The server says that there is no object: nothing can be reported either."""


@dataclass
class Orders:
    """Asks for orders and remembers them."""

    api: Api
    node: str
    state: Path
    _last: Accepted | None = None
    _loaded: bool = False
    _heard_at: float = 0.0
    """When `_last` came here, as `time.monotonic` counts."""

    def fetch(self) -> Order:
        """What to do now. Raises nothing that the API server or the ledger can cause."""
        try:
            found = self.api.get(NODE_CACHES, self.node)
        except NotFound:
            self._remember(None)
            return Order(None, _not_applied(Why.NO_POLICY, "there is no NodeImageCache for this node"), gone=True)
        except ApiAway as error:
            return self._while_away(str(error))
        except ApiRefused as error:
            return self._as_audit(Why.NOT_PERMITTED, f"{error}; the node acts as in Audit")
        return self._told(found)

    def _told(self, found: dict[str, Any]) -> Order:
        metadata = found.get("metadata")
        generation = metadata.get("generation") if isinstance(metadata, Mapping) else None
        if not isinstance(metadata, Mapping) or metadata.get("name") != self.node or not isinstance(generation, int):
            message = "the answer of the API server is not this node's NodeImageCache; the node acts as in Audit"
            return self._as_audit(Why.NOT_UNDERSTOOD, message)
        if metadata.get("deletionTimestamp"):
            # Somebody's finalizer may keep it for ever; what it says has ended all the same.
            self._remember(None)
            message = "the NodeImageCache of this node is being deleted"
            return Order(None, _not_applied(Why.NO_POLICY, message), generation=generation, found=found)
        told = Accepted(found.get("spec") or {}, generation, time.time())
        self._remember(told)
        return replace(read(told, self.node), found=found)

    def _while_away(self, why: str) -> Order:
        last = self._known()
        if last is None:
            known = "this node was never told anything" if self._loaded else "what this node was told cannot be read"
            return Order(None, _not_applied(Why.NO_POLICY, f"{why}; {known}"))
        if self._age(last) > MAX_AGE:
            return self._as_audit(Why.TOO_OLD, f"{why}, for over a week; the node acts as in Audit")
        return read(last, self.node)

    def _age(self, last: Accepted) -> float:
        """Seconds since a spec was confirmed, at least.

        A clock that was put back says nothing about that: then it counts as old as it could be. One that is put back
        while this program runs is told by the time that it ran.
        """
        by_wall = time.time() - last.confirmed_at
        return max(by_wall, time.monotonic() - self._heard_at) if by_wall >= -CLOCK_TOLERANCE else math.inf

    def _as_audit(self, why: Why, message: str) -> Order:
        last = self._known()
        order = read(last, self.node) if last is not None else Order(None, _not_applied(why, message))
        policy = None if order.policy is None else replace(order.policy, mode=Mode.AUDIT)
        return replace(order, policy=policy, applied=_not_applied(why, message))

    def _known(self) -> Accepted | None:
        """The last accepted spec: from memory, else from the ledger."""
        if not self._loaded:
            try:
                with ledger_file.reading(self.state) as book:
                    self._last = book.accepted()
                self._loaded, self._heard_at = True, time.monotonic()
            except LedgerError as error:
                _log.warning("the last spec cannot be read: %s", error)
        return self._last

    def _remember(self, told: Accepted | None) -> None:
        self._last, self._loaded, self._heard_at = told, True, time.monotonic()
        try:
            with ledger_file.writing(self.state) as book:
                book.accept(told)
                book.commit()
        except LedgerError as error:
            _log.warning("what this node is told cannot be remembered: %s", error)


def read(told: Accepted, node: str) -> Order:
    """What a spec means. One that is not understood in full acts as Audit: what is unknown may be meant to protect."""
    spec = copy.deepcopy(told.spec)
    strange: list[str] = []
    try:
        understood = _understood(spec, strange)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        strange.append(f"{_path(first['loc'])}: {first['msg'].removeprefix('Value error, ')}")
        understood = None
    if strange:
        message = f"this agent does not understand {'; '.join(strange)}; it acts as in Audit"
        applied = _not_applied(Why.NOT_UNDERSTOOD, message)
    else:
        applied = Said(NodeCondition.POLICY_APPLIED, Status.TRUE, Why.APPLIED, "the last pass ran under these settings")
    if understood is None:
        return Order(Policy(), applied, generation=told.generation, spec=told.spec)
    if understood.policy is None or understood.mode is None:
        message = "no policy selects this node; nothing is observed and nothing removed"
        return Order(None, _not_applied(Why.NO_POLICY, message), generation=told.generation, spec=told.spec)
    policy = node_settings.to_engine(understood, understood.policy.name, node)
    policy = replace(policy, shared_with=understood.shared_storage_with)
    if strange:
        policy = replace(policy, mode=Mode.AUDIT)
    return Order(policy, applied, understood.interval, told.generation, understood.policy, told.spec)


def _understood(spec: Any, strange: list[str]) -> NodeSpec:
    """The spec without fields that are not known, whose paths go to `strange`. Raises ValidationError."""
    while True:
        try:
            return NodeSpec.model_validate(spec)
        except ValidationError as error:
            unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
            if not unknown:
                raise
            for path in unknown:
                strange.append(_path(path))
                _remove(spec, path)


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, ("spec", *location)))


def _remove(spec: Any, path: tuple[int | str, ...]) -> None:
    for part in path[:-1]:
        spec = spec[part]
    del spec[path[-1]]


def _not_applied(why: Why, message: str) -> Said:
    return Said(NodeCondition.POLICY_APPLIED, Status.FALSE, why, message)
