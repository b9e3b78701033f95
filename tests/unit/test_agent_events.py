"""Events: few, each once, and such that the API server takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.agent.events import Event, EventReason, of_pass, post
from basekeeper.agent.status import after_pass, without_pass
from basekeeper.cache.acts import Action
from basekeeper.cache.pressure import PressureState, Relief
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.report import Report
from basekeeper.cache.verdicts import Reason, Verdict
from basekeeper.cluster.api import Api, ApiAway
from tests.unit.judging import NOW
from tests.unit.test_agent_status import HOST, order, report, row, tripped

HELD = report(holds=(Hold(Reason.UNKNOWN_USAGE, "a/disk cannot be read", "a/disk"),))
OPEN = report(
    trips=(tripped(Reason.CLOCK_JUMPED, "the clock went forward"),),
    holds=(Hold(Reason.CLOCK_JUMPED, "the clock went forward"),),
)
CLEAN = report(row())
FULL = report(relief=Relief(PressureState.NOT_OURS, "the disk is 91 % full", 91.0, 10, 20, 0, True))
ROOMY = report(relief=Relief(PressureState.BELOW, "the disk is 71 % full", 71.0, 10, 0, 0, False))
FAILED = report(error="the ledger is full")


@dataclass
class Node:
    """A node whose passes are told one after another; `there` is all that outlives its agent."""

    there: dict[str, Any] = field(default_factory=dict)

    def passes(self, *reports: Report) -> list[list[str]]:
        """What each pass is told by."""
        said = []
        for made in reports:
            after = after_pass(order(), made, HOST, None, self.there, NOW)
            said.append([event.reason.value for event in of_pass(made, self.there, after)])
            self.there = after
        return said

    def idles(self) -> None:
        self.there = without_pass(order({}), HOST, self.there, NOW)


def events(made: Report) -> list[Event]:
    return of_pass(made, {}, after_pass(order(), made, HOST, None, {}, NOW))


NOT_OURS = "PressureNotOurs"
STORIES: dict[str, tuple[list[Report], list[list[str]]]] = {
    "nothing": ([CLEAN, CLEAN], [[], []]),
    "a hold that lasts": ([HELD, HELD, HELD], [["RemovalHeld"], [], []]),
    "a hold that comes back": ([HELD, CLEAN, HELD], [["RemovalHeld"], [], ["RemovalHeld"]]),
    "a hold that changes its reason": (
        [HELD, report(holds=(Hold(Reason.IMAGE_UNKNOWN, "raw"),)), HELD],
        [["RemovalHeld"], ["RemovalHeld"], ["RemovalHeld"]],
    ),
    "a hold that changes its path": (
        [HELD, report(holds=(Hold(Reason.UNKNOWN_USAGE, "b", "b"),))],
        [["RemovalHeld"], []],
    ),
    "a hold, and a pass that failed": ([HELD, FAILED, FAILED, HELD], [["RemovalHeld"], [], [], []]),
    "a full disk": ([ROOMY, FULL, FULL, FAILED, FULL, ROOMY, FULL], [[], [NOT_OURS], [], [], [], [], [NOT_OURS]]),
    "the breaker": ([CLEAN, OPEN, OPEN, CLEAN, CLEAN], [[], ["BreakerOpened"], [], ["BreakerClosed"], []]),
    "the breaker, from the first pass on": ([OPEN, CLEAN], [["BreakerOpened"], ["BreakerClosed"]]),
    "the breaker, and a pass that failed": (
        [OPEN, FAILED, OPEN, FAILED, CLEAN],
        [["BreakerOpened"], [], [], [], ["BreakerClosed"]],
    ),
    "a hold behind the breaker": ([OPEN, HELD], [["BreakerOpened"], ["RemovalHeld", "BreakerClosed"]]),
}


@pytest.mark.parametrize(("reports", "said"), STORIES.values(), ids=STORIES)
def test_what_lasts_is_told_when_it_begins_also_across_a_restart(reports: list[Report], said: list[list[str]]) -> None:
    assert Node().passes(*reports) == said


@pytest.mark.parametrize(
    "reason",
    [Reason.LIMIT_REACHED, Reason.SPAWN_IN_PROGRESS, Reason.SUSPENDED, Reason.DRAINING, Reason.OUTSIDE_WINDOW],
)
def test_what_passes_by_itself_or_was_ordered_is_no_event(reason: Reason) -> None:
    assert Node().passes(report(holds=(Hold(reason, ""),))) == [[]]


def test_a_hold_under_a_policy_that_comes_back_is_told_again() -> None:
    node = Node()
    node.passes(HELD)
    node.idles()
    assert node.passes(HELD) == [["RemovalHeld"]]


@pytest.mark.parametrize("action", [Action.QUARANTINED, Action.PURGED], ids=["quarantined", "purged at once"])
def test_removals_are_one_event_a_pass(action: Action) -> None:
    gone = [row(number, Verdict.REMOVE, Reason.EXPIRED, action=action, bytes=1 << 30) for number in range(3)]
    due = row(9, Verdict.REMOVE, Reason.RETENTION_OVER, action=Action.PURGED, entry="entry")
    assert events(report(*gone, due)) == [
        Event(EventReason.REMOVED, "removed 3 base images, 3.0 GiB, that nothing needed")
    ]


def test_a_purge_of_what_was_removed_before_is_no_event() -> None:
    assert events(report(row(0, Verdict.REMOVE, Reason.RETENTION_OVER, action=Action.PURGED, entry="entry"))) == []


def test_what_is_skipped_or_fails_is_no_removal() -> None:
    rows = [row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.FAILED, error="no"), row(1, action=Action.SKIPPED)]
    assert events(report(*rows)) == []


def test_what_something_needed_is_a_warning() -> None:
    back = row(0, Verdict.KEEP, Reason.IN_USE_BY_OVERLAY, action=Action.RESTORED)
    assert events(report(back)) == [
        Event(EventReason.RESTORED, f"put back 1 base image that something needs: {back.name}", warning=True)
    ]


def test_what_an_emptied_quarantine_gave_back_is_no_warning() -> None:
    back = [row(number, Verdict.KEEP, Reason.DRAINING, action=Action.RESTORED) for number in range(5)]
    names = ", ".join(item.name for item in back[:3])
    assert events(report(*back)) == [
        Event(EventReason.RESTORED, f"put back 5 base images to empty the quarantine: {names}")
    ]
    needed = row(9, Verdict.KEEP, Reason.IN_USE_BY_DOMAIN, action=Action.RESTORED)
    assert events(report(*back, needed)) == [
        Event(
            EventReason.RESTORED,
            "put back 1 base image that something needs and 5 base images to empty the quarantine: " + needed.name,
            warning=True,
        )
    ]


# Writing them


@dataclass
class Server:
    """An API server that takes events, or does not answer."""

    away: bool = False
    taken: list[dict[str, Any]] = field(default_factory=list)

    def create(self, _resource: object, content: Mapping[str, Any]) -> None:
        if self.away:
            raise ApiAway("the API server does not answer")
        self.taken.append(dict(content))


def posted(node: str, *some: Event, owner: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    server = Server()
    post(cast("Api", server), node, owner, list(some))
    return server.taken


def test_an_event_is_where_kubectl_describe_node_looks() -> None:
    event = Event(EventReason.HELD, "UnknownUsage: unread", warning=True)
    (found,) = posted("node-a", event, owner={"uid": "u-1"})
    assert (found["metadata"]["namespace"], found["type"], found["reason"]) == ("default", "Warning", "RemovalHeld")
    assert found["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "u-1"}


def test_two_events_have_two_names() -> None:
    event = Event(EventReason.REMOVED, "")
    assert len({item["metadata"]["name"] for item in posted("node-a", *[event] * 9)}) == 9


@given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True), st.text() | st.text(min_size=1100))
def test_the_api_server_takes_every_event(node: str, message: str) -> None:
    """The bounds are those of `ValidateEventCreate` in Kubernetes, which counts bytes."""
    (found,) = posted(node, Event(EventReason.HELD, message))
    assert len(found["metadata"]["name"]) <= 253
    assert ".." not in found["metadata"]["name"].removeprefix(node[:236])
    assert len(found["message"].encode()) <= 1024
    assert message.encode("utf-8", "backslashreplace").startswith(found["message"].encode())
    assert 0 < len(found["reportingInstance"].encode()) <= 128


def test_an_event_that_cannot_be_written_is_lost_and_ends_nothing() -> None:
    post(cast("Api", Server(away=True)), "node-a", None, [Event(EventReason.REMOVED, "")] * 2)
