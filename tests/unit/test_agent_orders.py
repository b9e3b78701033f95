"""What a node is told: every answer of the API server, and every state of what is remembered, and what follows."""

import errno
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.agent import orders
from basekeeper.agent.orders import MAX_AGE, Order, Orders, read
from basekeeper.cache import ledger_file
from basekeeper.cache.ledger import Accepted, Ledger, LedgerError
from basekeeper.cache.ledger_file import FILE
from basekeeper.cache.settings import Drain, Mode
from basekeeper.cluster.api import Api, ApiAway, ApiRefused, Conflict, NotFound, NotTheServer
from basekeeper.resources.conditions import Status, Why
from tests.unit.judging import DAY, HOUR, MINUTE

NODE = "node-a"
POLICY = {"name": "compute", "uid": "u-1", "generation": 4}
ENFORCE: dict[str, Any] = {"mode": "Enforce", "policy": POLICY, "interval": "5m", "minimumAge": {"original": "2h"}}


def node_cache(spec: Any = ENFORCE, *, generation: int = 7, **metadata: Any) -> dict[str, Any]:
    """A NodeImageCache as the API server gives it."""
    return {
        "apiVersion": "basekeeper.io/v1alpha1",
        "kind": "NodeImageCache",
        "metadata": {"name": NODE, "uid": "u-2", "generation": generation, **metadata},
        "spec": spec,
    }


@dataclass
class Server:
    """An API server that gives one answer, until it is told another."""

    answer: Any

    def get(self, _resource: object, name: str) -> dict[str, Any]:
        assert name == NODE
        if isinstance(self.answer, Exception):
            raise self.answer
        return cast("dict[str, Any]", self.answer)


@dataclass
class Agent:
    """An agent's orders, which a restart begins anew on the same state directory."""

    state: Path
    server: Server = field(default_factory=lambda: Server(node_cache()))
    orders: Orders = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.orders = Orders(cast("Api", self.server), NODE, self.state)

    def told(self, answer: Any) -> Order:
        self.server.answer = answer
        return self.orders.fetch()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """An agent that was never told anything."""
    return Agent(tmp_path / "state")


@dataclass
class Clocks:
    """The wall clock, and the one that nobody sets."""

    wall: float = 1_800_000_000.0
    steady: float = 5_000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(orders, "time", clocks)
    return clocks


def mode_of(order: Order) -> Mode | None:
    """The mode of the pass that an order asks for; None: no pass."""
    return None if order.policy is None else order.policy.mode


AWAY = ApiAway("the API server does not answer: Connection refused")
AWAYS = {
    "no connection": AWAY,
    "429": ApiAway("the API server answers 429: Too many requests"),
    "503": ApiAway("the API server answers 503: overloaded"),
}
REFUSALS = {
    "401": ApiRefused("the API server answers 401: Unauthorized"),
    "403": ApiRefused("the API server answers 403: forbidden"),
    "409": Conflict("the API server answers 409: conflict"),
    "410": ApiRefused("the API server answers 410: Gone"),
    "422": ApiRefused("the API server answers 422: invalid"),
    "no JSON": NotTheServer("something else than the API server answers: <html>"),
}
GARBAGE: dict[str, Any] = {
    "nothing": {},
    "an error page as an object": {"error": "login first"},
    "no metadata": {"kind": "NodeImageCache", "spec": ENFORCE},
    "metadata of another shape": {**node_cache(), "metadata": ["name"]},
    "another node's object": node_cache(name="node-b"),
    "no generation": node_cache(generation=cast("int", None)),
    "a generation that is text": node_cache(generation=cast("int", "7")),
}
ENDS: dict[str, Any] = {
    "404": NotFound("the API server answers 404: not found"),
    "no policy": node_cache({}, generation=8),
    "no spec": node_cache(None, generation=8),
    "settings without a policy": node_cache({"mode": "Enforce"}, generation=8),
    "a policy without a mode": node_cache({"policy": POLICY}, generation=8),
    "it is being deleted": node_cache(deletionTimestamp="2026-11-24T00:00:00Z"),
}


def test_what_the_server_says_is_done_and_told_with_its_generation(agent: Agent) -> None:
    order = agent.told(node_cache())
    assert order.policy is not None
    assert (order.policy.mode, order.policy.minimum_age.original, order.interval) == (Mode.ENFORCE, 2 * HOUR, 300)
    assert (order.applied.status, order.applied.reason, order.generation) == (Status.TRUE, Why.APPLIED, 7)
    assert order.origin is not None
    assert order.origin.model_dump() == POLICY
    assert (order.found, order.gone) == (node_cache(), False)


@pytest.mark.parametrize("answer", [*AWAYS.values(), *REFUSALS.values(), *GARBAGE.values()])
def test_a_node_that_was_never_told_anything_does_nothing(agent: Agent, answer: Any) -> None:
    order = agent.told(answer)
    assert (order.policy, order.generation, order.found, order.gone) == (None, None, None, False)
    assert order.applied.status is Status.FALSE


@pytest.mark.parametrize("answer", AWAYS.values(), ids=AWAYS)
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_the_last_settings_count_while_the_server_is_away(agent: Agent, answer: Any, *, restarted: bool) -> None:
    told = agent.told(node_cache())
    if restarted:
        agent.restart()
    order = agent.told(answer)
    assert (order.policy, order.applied, order.interval) == (told.policy, told.applied, told.interval)
    assert (order.generation, order.origin, order.found) == (7, told.origin, None)


@pytest.mark.parametrize("answer", [*REFUSALS.values(), *GARBAGE.values()], ids=[*REFUSALS, *GARBAGE])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_an_answer_that_says_nothing_of_the_object_means_no_removal(
    agent: Agent, answer: Any, *, restarted: bool
) -> None:
    agent.told(node_cache())
    if restarted:
        agent.restart()
    order = agent.told(answer)
    assert (mode_of(order), order.applied.status) == (Mode.AUDIT, Status.FALSE)
    assert order.applied.reason in (Why.NOT_PERMITTED, Why.NOT_UNDERSTOOD)
    assert mode_of(agent.told(AWAY)) is Mode.ENFORCE  # it was no answer, and forgot nothing


@pytest.mark.parametrize("answer", ENDS.values(), ids=ENDS)
def test_what_ends_a_policy_is_remembered_also_across_a_restart(agent: Agent, answer: Any) -> None:
    agent.told(node_cache())
    assert mode_of(agent.told(answer)) is None
    assert mode_of(agent.told(AWAY)) is None
    agent.restart()
    order = agent.told(AWAY)
    assert (order.policy, order.applied.status, order.applied.reason) == (None, Status.FALSE, Why.NO_POLICY)


def test_who_shares_the_storage_is_remembered_across_a_restart_without_the_server(agent: Agent) -> None:
    told = agent.told(node_cache({**ENFORCE, "sharedStorageWith": ["node-b", "node-c"]}))
    agent.restart()
    for order in (told, agent.told(ApiAway("connection refused"))):
        assert order.policy is not None
        assert order.policy.shared_with == ("node-b", "node-c")


def test_only_an_object_that_is_not_there_cannot_be_reported_into(agent: Agent) -> None:
    gone = {name: agent.told(answer) for name, answer in ENDS.items()}
    assert [name for name, order in gone.items() if order.gone] == ["404"]
    assert [name for name, order in gone.items() if order.generation is None] == ["404"]


# Age


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize(("age", "mode"), [(MAX_AGE - HOUR, Mode.ENFORCE), (MAX_AGE + HOUR, Mode.AUDIT)])
def test_settings_that_nobody_has_confirmed_for_a_week_act_as_audit(
    agent: Agent, clocks: Clocks, age: float, mode: Mode, *, restarted: bool
) -> None:
    agent.told(node_cache())
    clocks.pass_by(age)
    if restarted:
        agent.restart()
    order = agent.told(AWAY)
    assert mode_of(order) is mode
    assert order.applied.reason is (Why.APPLIED if mode is Mode.ENFORCE else Why.TOO_OLD)


def test_every_answer_confirms_the_settings_anew(agent: Agent, clocks: Clocks) -> None:
    for _ in range(4):
        agent.told(node_cache())
        clocks.pass_by(5 * DAY)
    assert mode_of(agent.told(AWAY)) is Mode.ENFORCE


def test_a_clock_that_was_put_back_makes_nothing_younger(agent: Agent, clocks: Clocks) -> None:
    agent.told(node_cache())
    clocks.pass_by(5 * DAY)
    clocks.wall -= 4 * DAY
    assert mode_of(agent.told(AWAY)) is Mode.ENFORCE
    clocks.pass_by(3 * DAY)
    assert mode_of(agent.told(AWAY)) is Mode.AUDIT


@pytest.mark.parametrize(("put_back", "mode"), [(MINUTE, Mode.ENFORCE), (HOUR, Mode.AUDIT), (400 * DAY, Mode.AUDIT)])
def test_settings_from_the_future_are_as_old_as_they_could_be(
    agent: Agent, clocks: Clocks, put_back: float, mode: Mode
) -> None:
    agent.told(node_cache())
    clocks.wall -= put_back
    agent.restart()
    assert mode_of(agent.told(AWAY)) is mode


# The ledger


def damage(state: Path) -> None:
    (state / FILE).write_bytes(b"damaged")


def lose(state: Path) -> None:
    (state / FILE).unlink()


@pytest.mark.parametrize("how", [damage, lose])
def test_with_a_lost_ledger_a_restarted_agent_was_never_told_anything(
    agent: Agent, how: Callable[[Path], None]
) -> None:
    agent.told(node_cache())
    how(agent.state)
    assert mode_of(agent.told(AWAY)) is Mode.ENFORCE  # it has not forgotten yet
    agent.restart()
    assert mode_of(agent.told(AWAY)) is None


def test_remembering_settings_hides_from_no_pass_that_the_ledger_was_lost(agent: Agent) -> None:
    agent.told(node_cache())
    damage(agent.state)
    agent.told(node_cache())
    with ledger_file.writing(agent.state) as book:
        assert book.lost


def test_a_ledger_that_cannot_be_read_is_asked_again(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.told(node_cache())
    agent.restart()
    with monkeypatch.context() as patched:
        patched.setattr(ledger_file, "_open_copy", _refused)
        order = agent.told(AWAY)
        assert (order.policy, order.generation) == (None, None)
        assert order.applied.message.endswith("what this node was told cannot be read")
    assert mode_of(agent.told(AWAY)) is Mode.ENFORCE


def _refused(_path: Path) -> sqlite3.Connection:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_disk_without_room_keeps_nobody_from_obeying(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_book: object) -> None:
        raise LedgerError("the ledger could not be written: database or disk is full")

    agent.told(node_cache())
    monkeypatch.setattr(Ledger, "commit", full)
    assert mode_of(agent.told(node_cache({**ENFORCE, "mode": "Audit"}))) is Mode.AUDIT
    assert mode_of(agent.told(AWAY)) is Mode.AUDIT
    assert mode_of(agent.told(ENDS["404"])) is None
    assert mode_of(agent.told(AWAY)) is None


# What a spec means


STRANGE: dict[str, tuple[dict[str, Any], str]] = {
    "a field that is not known": ({"notYetKnown": True}, "spec.notYetKnown"),
    "a field of a later release, inside another": ({"limits": {"maxNodes": 3}}, "spec.limits.maxNodes"),
    "a field of an entry": ({"acknowledged": [{"path": "a", "reason": "r", "by": "me"}]}, "spec.acknowledged.0.by"),
    "a field of its origin": ({"policy": {**POLICY, "shard": 1}}, "spec.policy.shard"),
    "several": ({"one": 1, "quarantine": {"two": 2}}, "spec.quarantine.two; spec.one"),
    "a mode that is not known": ({"mode": "Aggressive"}, "spec.mode: Input should be 'Audit' or 'Enforce'"),
    "a value that is not known": (
        {"sharedStorage": {"mode": "Trust"}},
        "spec.sharedStorage.mode: Input should be",
    ),
    "a value of another kind": ({"minimumAge": {"swap": 3}}, "spec.minimumAge.swap: expected a duration such as 24h"),
    "no value": ({"quarantine": None}, "spec.quarantine: "),
    "a list that became a mapping": ({"acknowledged": {"a": "b"}}, "spec.acknowledged: "),
    "both": ({"one": 1, "cachedOnly": "Perhaps"}, "spec.cachedOnly: Input should be"),
}


@pytest.mark.parametrize(("more", "which"), STRANGE.values(), ids=STRANGE)
def test_settings_that_are_not_understood_act_as_audit_and_say_which(
    agent: Agent, more: dict[str, Any], which: str
) -> None:
    order = agent.told(node_cache({**ENFORCE, **more}))
    assert (mode_of(order), order.generation) == (Mode.AUDIT, 7)
    assert (order.applied.status, order.applied.reason) == (Status.FALSE, Why.NOT_UNDERSTOOD)
    assert order.applied.message.startswith("this agent does not understand spec.")
    assert which in order.applied.message
    assert mode_of(agent.told(AWAY)) is Mode.AUDIT


def test_what_is_understood_counts_beside_a_field_that_is_not_known() -> None:
    order = read(Accepted({**ENFORCE, "notYetKnown": True, "suspend": True}, 7, 0.0), NODE)
    assert order.policy is not None
    assert (order.policy.suspend, order.policy.minimum_age.original, order.interval) == (True, 2 * HOUR, 300)
    assert order.origin is not None


def test_reading_a_spec_leaves_it_as_it_was() -> None:
    spec = {**ENFORCE, "limits": {"maxNodes": 3}}
    read(Accepted(spec, 7, 0.0), NODE)
    assert spec["limits"] == {"maxNodes": 3}


def test_a_node_heeds_only_the_acknowledged_paths_that_are_about_it() -> None:
    rows = [
        {"path": "a", "reason": "all"},
        {"path": "b", "reason": "mine", "node": NODE, "until": "2027-01-01T00:00:00Z"},
        {"path": "c", "reason": "another's", "node": "node-b"},
    ]
    order = read(Accepted({**ENFORCE, "acknowledged": rows}, 7, 0.0), NODE)
    assert order.policy is not None
    assert [(row.path, row.until) for row in order.policy.acknowledged] == [("a", None), ("b", 1798761600.0)]


def test_an_emptied_quarantine_is_ordered_as_any_setting() -> None:
    order = read(Accepted({**ENFORCE, "quarantine": {"drain": "Purge", "retention": "0s"}}, 7, 0.0), NODE)
    assert order.policy is not None
    assert (order.policy.draining, order.policy.retention) == (Drain.PURGE, 0.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
fields = st.sampled_from(
    ["mode", "policy", "rollout", "limits", "quarantine", "interval", "minimumAge", "pinnedImages", "acknowledged", "x"]
)


@given(st.dictionaries(fields, json_values) | json_values)
def test_no_spec_ends_the_agent_and_none_that_is_not_understood_removes(spec: Any) -> None:
    whole = read(Accepted({**ENFORCE, **spec} if isinstance(spec, dict) else spec, 7, 0.0), NODE)
    assert whole.generation == 7
    if whole.applied.status is not Status.TRUE:
        assert mode_of(whole) in (Mode.AUDIT, None)
