"""What this node is told to do: its own `NodeImageCache`, read before every pass; the last one while the API is away.

An answer of the API server is obeyed: no object, or one without a policy, means stop, and is remembered as that.
Only when the server cannot be asked does the last accepted spec count, for a week as it is, after that as Audit. The
ledger keeps it; a lost ledger means that nothing was ever told.
"""

import copy
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from basekeeper.cache import ledger, settings
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
    _loaded: bool = field(default=False)

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
        told = Accepted(found.get("spec") or {}, int(found["metadata"]["generation"]), time.time())
        self._remember(told)
        return replace(read(told, self.node), found=found)

    def _while_away(self, why: str) -> Order:
        last = self._known()
        if last is None:
            return Order(None, _not_applied(Why.NO_POLICY, f"{why}; this node was never told anything"))
        # A clock that was put back says nothing about how old the spec is: then it counts as old as it could be.
        if abs(time.time() - last.confirmed_at) > MAX_AGE:
            return self._as_audit(Why.TOO_OLD, f"{why}, for over a week; the node acts as in Audit")
        return read(last, self.node)

    def _as_audit(self, why: Why, message: str) -> Order:
        last = self._known()
        order = read(last, self.node) if last is not None else Order(None, _not_applied(why, message))
        policy = None if order.policy is None else replace(order.policy, mode=Mode.AUDIT)
        return replace(order, policy=policy, applied=_not_applied(why, message))

    def _known(self) -> Accepted | None:
        """The last accepted spec: from memory, else from the ledger."""
        if not self._loaded:
            try:
                with ledger.reading(self.state) as book:
                    self._last = book.accepted()
                self._loaded = True
            except LedgerError as error:
                _log.warning("the last spec cannot be read: %s", error)
        return self._last

    def _remember(self, told: Accepted | None) -> None:
        self._last, self._loaded = told, True
        try:
            with ledger.writing(self.state) as book:
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
        strange.append(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        understood = None
    if strange:
        message = f"this agent does not understand spec.{'; spec.'.join(strange)}; it acts as in Audit"
        applied = _not_applied(Why.NOT_UNDERSTOOD, message)
    else:
        applied = Said(NodeCondition.POLICY_APPLIED, Status.TRUE, Why.APPLIED, "the last pass ran under these settings")
    if understood is None:
        return Order(Policy(), applied, generation=told.generation)
    if understood.policy is None or understood.mode is None:
        message = "no policy selects this node; nothing is observed and nothing removed"
        return Order(None, _not_applied(Why.NO_POLICY, message), generation=told.generation)
    policy = node_settings.to_engine(understood, understood.policy.name, node)
    if strange:
        policy = replace(policy, mode=Mode.AUDIT)
    return Order(policy, applied, understood.interval, told.generation, understood.policy)


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
                strange.append(".".join(map(str, path)))
                _remove(spec, path)


def _remove(spec: Any, path: tuple[int | str, ...]) -> None:
    for part in path[:-1]:
        spec = spec[part]
    del spec[path[-1]]


def _not_applied(why: Why, message: str) -> Said:
    return Said(NodeCondition.POLICY_APPLIED, Status.FALSE, why, message)
