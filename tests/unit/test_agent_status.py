"""What a node tells of a pass: small, valid, the notable first, news only when there is some, and nobody's names."""

import json
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.agent import status
from basekeeper.agent.orders import Order, read
from basekeeper.agent.status import BUDGET, after_pass, beaten, differs, without_pass
from basekeeper.cache.acts import Action
from basekeeper.cache.evidence import Group, Shared
from basekeeper.cache.ledger import Accepted
from basekeeper.cache.names import Kind, display
from basekeeper.cache.nova_manager import Answer, NovaManager, Sign
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.report import Outcome, Report, Row, Seconds
from basekeeper.cache.settings import Host, Mode, Policy
from basekeeper.cache.storage import Capacity
from basekeeper.cache.trips import Trip
from basekeeper.cache.verdicts import ANOMALIES, USE_REASONS, Reason, Verdict
from basekeeper.cache.windows import Window
from basekeeper.resources import crd
from basekeeper.resources.conditions import NodeCondition, Why
from tests.unit.judging import CLOSED_NOW, DAY, HOUR, NOW, OPEN_NOW, original
from tests.unit.structural import spec_and_status, wrongs

GROUP = Group(("host-b",), (), 7, "host-b", leads=False, skew=0.0)
_, SCHEMA = spec_and_status(crd.nodes())
INSTANCES = Path("/var/lib/nova/instances")
HOST = Host("node-a", INSTANCES, INSTANCES / "_base", INSTANCES / "snapshots", Path("/state"))
DISK = Capacity("ext4", 10**12, 4 * 10**11)
ORIGIN = {"name": "compute", "uid": "0f3c0000-0000-4000-8000-00000000000a", "generation": 4}
SPEC: dict[str, Any] = {
    "mode": "Enforce",
    "suspend": False,
    "interval": "40m",
    "minimumAge": {"original": "24h", "resized": "1h", "swap": "24h", "ephemeral": "24h", "partial": "24h"},
    "cachedOnly": "Keep",
    "pinnedImages": [f"0f3c0000-0000-4000-8000-{number:012d}" for number in range(8)],
    "limits": {"maxFiles": 20, "maxBytes": 100 << 30, "maxPercent": 25},
    "quarantine": {"retention": "6h"},
    "acknowledged": [{"path": "0f3c0000-0000-4000-8000-000000000001/disk", "reason": "left by a migration"}] * 3,
    "sharedStorage": {"mode": "Refuse"},
    "policy": ORIGIN,
    "maintenanceWindows": [{"schedule": "30 1 * * SAT,SUN", "duration": "4h", "timeZone": "Europe/Berlin"}],
    "rollout": {"movedAt": "2026-11-24T00:00:00Z", "generation": 4, "waiting": True},
}
ENFORCE = Policy(name="compute", mode=Mode.ENFORCE)


def metadata(name: str) -> dict[str, Any]:
    """What an API server keeps beside spec and status, both field managers included, as seen in Kubernetes 1.37."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": ORIGIN["uid"]}
    told: dict[str, Any] = {f"f:{field}": {} for field in SCHEMA["properties"]}
    told["f:conditions"] = {f'k:{{"type":"{kind}"}}': {} for kind in NodeCondition}
    common = {
        "apiVersion": "basekeeper.io/v1alpha1",
        "fieldsType": "FieldsV1",
        "operation": "Apply",
        "time": "2026-11-24T00:00:00Z",
    }
    mine = {**common, "fieldsV1": {"f:status": told}, "manager": "basekeeper-agent", "subresource": "status"}
    owners: dict[str, Any] = {"f:metadata": {"f:ownerReferences": {f'k:{{"uid":"{owner["uid"]}"}}': {}}}, "f:spec": {}}
    theirs = {**common, "fieldsV1": owners, "manager": "basekeeper-controller"}
    return {
        "creationTimestamp": "2026-11-24T00:00:00Z",
        "generation": 123456,
        "managedFields": [mine, theirs],
        "name": name,
        "ownerReferences": [owner],
        "resourceVersion": "123456789",
        "uid": ORIGIN["uid"],
    }


def order(spec: Any = None, name: str = "node-a", *, generation: int = 7, first: bool = False) -> Order:
    """What the node was told; `first`: the object has no status yet, whose fields the server keeps count of later."""
    told = SPEC if spec is None else spec
    known = metadata(name)
    if first:
        known["managedFields"] = known["managedFields"][1:]
    found = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache", "metadata": known, "spec": told}
    return replace(read(Accepted(told, generation, NOW), name), found=found)


def row(number: int = 0, verdict: Verdict = Verdict.KEEP, reason: Reason = Reason.TOO_YOUNG, **more: Any) -> Row:
    fields: dict[str, Any] = {"name": original(number).decode(), "kind": Kind.ORIGINAL, "bytes": 4096, "message": "why"}
    return Row(verdict=verdict, reason=reason, **{**fields, **more})


def tripped(cause: Reason, message: str = "why", *, since: float = NOW - HOUR) -> Trip:
    """An anomaly that stands."""
    return Trip(cause, since, message, "what ends it")


NOVA = NovaManager(Answer(None, Sign.NO_SIGN, "x" * 100), Answer(None, Sign.NO_SIGN, "x" * 100))


def report(*rows: Row, **more: Any) -> Report:
    usual = {"kind": "Pass", "node": "node-a", "time": NOW, "policy": ENFORCE, "rows": rows, "nova": NOVA}
    return Report(**{**usual, **more})


def told(
    made: Report,
    before: dict[str, Any] | None = None,
    *,
    by: Order | None = None,
    disk: Capacity | None = DISK,
    host: Host = HOST,
    now: float = NOW,
) -> dict[str, Any]:
    """The status after a pass, as the API server gives it back; valid, or the test fails."""
    made_status = after_pass(by or order(), made, host, disk, before or {}, now)
    assert wrongs(made_status, SCHEMA) == []
    return dict(json.loads(json.dumps(made_status)))


def condition(found: dict[str, Any], kind: NodeCondition) -> tuple[str, str]:
    (one,) = [item for item in found["conditions"] if item["type"] == kind]
    return one["status"], one["reason"]


def whole(found: dict[str, Any], spec: Any, name: str) -> int:
    """Bytes of the object as the server stores it, whose JSON writes `<`, `>` and `&` with six characters each."""
    made = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache", "metadata": metadata(name)}
    text = json.dumps({**made, "spec": spec, "status": found}, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode()) + 5 * sum(text.count(character) for character in "<>&")


# Size


ODD = b"\xff<&" + "\N{SNOWMAN}".encode() * 80


def crowd(count: int = 500) -> tuple[Row, ...]:
    """Rows of every kind, some with names that take four times their bytes, or that JSON escapes."""
    verdicts, reasons, acts = list(Verdict), list(Reason), list(Action)
    return tuple(
        row(
            number,
            verdicts[number % 4],
            reasons[number % len(reasons)],
            name=display(ODD[number % 5 :]) if number % 3 == 0 else original(number).decode(),
            bytes=2**50,
            action=acts[number % 5] if number % 4 == 0 else None,
            error="\N{SNOWMAN}<" * 999 if number % 20 == 16 else None,
            entry="entry" if number % 9 == 0 else None,
            unused_since=NOW - DAY,
            removable_at=NOW + number if number % 4 == 1 else None,
        )
        for number in range(count)
    )


def many_holds(count: int = 100) -> tuple[Hold, ...]:
    reasons = list(Reason)
    return tuple(
        Hold(
            reasons[number % len(reasons)],
            ('\N{SNOWMAN}<&"\n' if number % 2 else "x") * 4096,
            "\N{SNOWMAN}/" + "p" * number * 40,
        )
        for number in range(count)
    )


LONG = "\N{SNOWMAN}<&" * 2000
CROWDED: dict[str, Report] = {
    "500 files": report(*crowd()),
    "100 holds with long messages and paths": report(holds=many_holds()),
    "everything at once": report(
        *crowd(),
        holds=many_holds(),
        libvirt_failure=LONG,
        shared=Shared(LONG),
        trips=(tripped(Reason.OTHER_DIRECTORY, LONG),),
    ),
    "a pass that failed": report(error=LONG),
    "a window": report(*crowd(), holds=many_holds(), policy=replace(ENFORCE, windows=(OPEN_NOW,))),
    "nothing": report(),
}


@pytest.mark.parametrize("made", CROWDED.values(), ids=CROWDED)
@pytest.mark.parametrize("name", ["n", "n" * 63, "n" * 253], ids=["a short name", "a long one", "the longest"])
@pytest.mark.parametrize("first", [True, False], ids=["the first status", "a later one"])
def test_the_whole_object_stays_under_eight_kibibytes(made: Report, name: str, *, first: bool) -> None:
    by = order(name=name, first=first)
    before: dict[str, Any] = {}
    for _ in range(2):  # what a failed pass keeps has to fit as well
        before = told(made, before, by=by, host=replace(HOST, node=name))
        assert whole(before, SPEC, name) <= BUDGET


def test_a_large_spec_takes_the_status_its_room_but_not_all_of_it() -> None:
    spec = {**SPEC, "pinnedImages": SPEC["pinnedImages"] * 32}
    found = told(CROWDED["everything at once"], by=order(spec))
    assert len(json.dumps(found)) < 4700
    assert (len(found["conditions"]), len(found["holds"]) > 0) == (len(NodeCondition), True)


def test_a_spec_takes_its_room_also_while_the_server_is_away() -> None:
    away = replace(order(), found=None)
    assert whole(told(CROWDED["everything at once"], by=away), SPEC, "node-a") <= BUDGET


WINDOWS: dict[str, tuple[tuple[Window, ...], dict[str, Any] | None]] = {
    "none": ((), None),
    "open": ((CLOSED_NOW, OPEN_NOW), {"open": True, "until": "2027-01-15T09:00:00Z"}),
    "open for ever": ((Window("* * * * *", HOUR, UTC),), {"open": True}),
    "closed": ((CLOSED_NOW,), {"open": False, "opensAt": "2027-01-16T07:00:00Z"}),
}


@pytest.mark.parametrize(("windows", "said"), WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("error", [None, "no"], ids=["a pass", "a pass that failed"])
def test_a_status_says_whether_a_window_is_open_and_when_that_changes(
    windows: tuple[Window, ...], said: dict[str, Any] | None, error: str | None
) -> None:
    assert told(report(policy=replace(ENFORCE, windows=windows), error=error)).get("window") == said


def test_a_status_says_which_trip_stands_since_when_and_what_ends_it_until_a_pass_finds_it_over() -> None:
    both = (tripped(Reason.OTHER_DIRECTORY, "gone"), tripped(Reason.USERS_VANISHED, since=NOW))
    there = told(report(trips=both))
    assert there["breaker"] == {
        "trip": "OtherDirectory-20270115T070000Z",
        "cause": "OtherDirectory",
        "since": "2027-01-15T07:00:00Z",
        "message": "gone",
        "clears": "what ends it",
    }
    assert told(report(error="no"), there)["breaker"] == there["breaker"]
    assert "breaker" not in told(report(), there)


def test_where_all_fits_all_is_told() -> None:
    rows = [row(number, removable_at=NOW + HOUR) for number in range(16)]
    found = told(report(*rows, holds=(Hold(Reason.UNKNOWN_USAGE, "unread", "a/disk"),)))
    assert (len(found["files"]), found["filesTruncated"]) == (16, False)
    assert (found["holds"], found["holdsTruncated"]) == (
        [{"reason": "UnknownUsage", "message": "unread", "path": "a/disk"}],
        False,
    )


@pytest.mark.parametrize(("count", "truncated"), [(32, False), (33, True)])
def test_what_was_left_out_is_said(count: int, truncated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BUDGET", 10**6)
    found = told(report(*(row(number) for number in range(count))))
    assert (len(found["files"]), found["filesTruncated"]) == (32, truncated)


def test_holds_that_were_left_out_are_said_and_one_is_always_told() -> None:
    found = told(CROWDED["everything at once"])
    assert (0 < len(found["holds"]) < 100, found["holdsTruncated"]) == (True, True)


def test_a_path_is_whole_or_not_there() -> None:
    holds = (Hold(Reason.UNKNOWN_USAGE, "one", "p" * 512), Hold(Reason.UNKNOWN_USAGE, "two", "p" * 513))
    found = told(report(holds=holds))
    assert [hold.get("path") for hold in found["holds"]] == ["p" * 512, None]


# Valid


texts = st.text(max_size=40) | st.text(st.characters(categories=["Cs", "Cc"]), max_size=4) | st.just("x" * 5000)
numbers = st.sampled_from([0, 1, 4096, 2**53 + 1, 2**63])
moments = st.none() | st.sampled_from([0.0, -5.0, NOW, 4e11, 0.5])
rows = st.builds(
    Row,
    name=texts,
    kind=st.sampled_from(Kind),
    verdict=st.sampled_from(Verdict),
    reason=st.sampled_from(Reason),
    message=texts,
    bytes=numbers,
    unused_since=moments,
    removable_at=moments,
    action=st.none() | st.sampled_from(Action),
    error=st.none() | texts,
    entry=st.none() | st.just("entry"),
)
holds = st.builds(Hold, st.sampled_from(Reason), texts, st.none() | st.text(max_size=600))
groups = st.just(GROUP)
reports = st.builds(
    Report,
    kind=st.just("Pass"),
    node=st.just("node-a"),
    time=st.sampled_from([NOW, 0.0, -1.0, 4e11]),
    policy=st.just(ENFORCE),
    rows=st.lists(rows, max_size=5).map(tuple),
    holds=st.lists(holds, max_size=3).map(tuple),
    seconds=st.builds(Seconds, st.floats(0, 1e6)),
    error=st.none() | texts,
    reclaimed=numbers,
    quarantined=numbers,
    reclaimed_ever=numbers,
    libvirt_failure=st.none() | texts,
    shared=st.none() | st.builds(Shared, texts, st.booleans()),
    group=st.none() | groups,
    trips=st.lists(st.builds(tripped, st.sampled_from(sorted(ANOMALIES)), texts), max_size=1).map(tuple),
)
capacities = st.none() | st.builds(Capacity, st.sampled_from(["", "xfs", "fuse." + "x" * 99]), numbers, numbers)


@given(reports, reports, capacities)
def test_no_report_makes_a_status_that_the_server_would_refuse(one: Report, two: Report, disk: Capacity | None) -> None:
    first = told(one, disk=disk)
    second = told(two, first, disk=disk, now=NOW + HOUR)
    assert wrongs(without_pass(order({}), HOST, second, NOW), SCHEMA) == []
    assert not differs(told(two, second, disk=disk, now=NOW + DAY), second)


def test_a_file_system_that_claims_to_be_endless_is_told_as_large_as_can_be() -> None:
    found = told(report(), disk=Capacity("nfs4", 2**63, 2**63 - 1))
    assert found["fileSystem"] == {"type": "nfs4", "sizeBytes": 2**60, "availableBytes": 2**60}


def test_paths_of_any_bytes_are_told() -> None:
    host = replace(HOST, instances=Path("/odd\udcff"), base=Path("/" + "b" * 4000))
    assert told(report(), host=host)["paths"]["instances"] == "/odd\\xff"


STRANGE_BEFORE: dict[str, dict[str, Any]] = {
    "conditions of a later release": {
        "conditions": [{"type": "Later", "status": "True", "until": 7}, {"type": "Ready"}]
    },
    "no list of conditions": {"conditions": None},
    "files of a later release": {"files": [{"name": "n", "reason": "NewReason"}], "cache": {"files": "many"}},
    "holds of a later release": {"holds": [{"reason": "NewReason", "message": ""}], "holdsTruncated": "yes"},
}


@pytest.mark.parametrize("before", STRANGE_BEFORE.values(), ids=STRANGE_BEFORE)
def test_a_status_of_another_release_ends_no_pass(before: dict[str, Any]) -> None:
    assert told(report(error="no"), before)["holds"] == []
    assert wrongs(without_pass(order({}), HOST, before, NOW), SCHEMA) == []


# Order


def test_the_notable_come_first() -> None:
    wanted = [
        row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.FAILED, error="no"),
        row(1, Verdict.KEEP, Reason.IN_USE_BY_OVERLAY, action=Action.RESTORED),
        row(2, Verdict.HOLD, Reason.UNKNOWN_USAGE, bytes=8192),
        row(3, Verdict.HOLD, Reason.UNKNOWN_USAGE, bytes=1),
        row(4, Verdict.REMOVE, Reason.EXPIRED),
        row(5, removable_at=NOW + HOUR, bytes=1),
        row(6, removable_at=NOW + DAY, bytes=8192),
        row(7, Verdict.KEEP, Reason.IN_USE_BY_OVERLAY, bytes=8192),
        row(8, Verdict.KEEP, Reason.PINNED, bytes=1),
        row(9, Verdict.FOREIGN, Reason.FOREIGN_NAME, bytes=9999),
    ]
    found = told(report(*reversed(wanted)))
    assert [item["name"] for item in found["files"]] == [item.name for item in wanted]


def test_equally_notable_files_are_told_in_one_order() -> None:
    some = [row(number, Verdict.HOLD, Reason.UNKNOWN_USAGE) for number in range(6)]
    assert told(report(*some))["files"] == told(report(*reversed(some)))["files"]


@pytest.mark.parametrize("reason", Reason)
def test_since_when_a_file_is_unused_is_told_of_those_that_are(reason: Reason) -> None:
    (file,) = told(report(row(reason=reason, unused_since=NOW - DAY)))["files"]
    assert ("unusedSince" in file) == (reason not in USE_REASONS)


def test_no_user_of_a_file_is_named() -> None:
    users = ("0f3c0000-0000-4000-8000-000000000001/disk", "domain 7")
    kept = row(reason=Reason.IN_USE_BY_OVERLAY, users=users, message=f"needed by {users[0]}")
    found = told(report(kept, row(1, Verdict.HOLD, Reason.SPAWN_IN_PROGRESS)))
    assert not any(user in json.dumps(found) for user in users)


def test_a_file_in_the_quarantine_is_told_as_one() -> None:
    due = row(0, Verdict.HOLD, Reason.UNKNOWN_USAGE, entry="entry")
    found = told(report(due, row(1, Verdict.HOLD, Reason.UNKNOWN_USAGE)))
    assert {item["name"]: item.get("quarantined") for item in found["files"]} == {
        due.name: True,
        original(1).decode(): None,
    }


# Sums


def test_a_file_that_was_purged_at_once_was_removed_and_purged() -> None:
    gone = [
        row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.PURGED, bytes=1),
        row(1, Verdict.REMOVE, Reason.EXPIRED, action=Action.QUARANTINED, bytes=2),
        row(2, Verdict.REMOVE, Reason.RETENTION_OVER, action=Action.PURGED, bytes=4, entry="entry"),
    ]
    last = told(report(*gone, row(3), reclaimed=5))["lastPass"]
    assert (last["removed"], last["removedBytes"], last["purged"], last["purgedBytes"]) == (2, 3, 2, 5)
    assert last["outcome"] == Outcome.ACTED


def test_what_waits_for_the_limits_may_go_and_what_else_is_held_may_not() -> None:
    rows = [
        row(0, Verdict.REMOVE, Reason.EXPIRED, bytes=1),
        row(1, Verdict.HOLD, Reason.LIMIT_REACHED, bytes=2),
        row(2, Verdict.HOLD, Reason.UNKNOWN_USAGE, bytes=4),
        row(3, Verdict.REMOVE, Reason.EXPIRED, action=Action.QUARANTINED, bytes=8),
        row(4, Verdict.REMOVE, Reason.EXPIRED, action=Action.FAILED, error="no", bytes=16),
        row(5, Verdict.REMOVE, Reason.RETENTION_OVER, entry="entry", bytes=32),
        row(6, Verdict.KEEP, Reason.IN_USE_BY_OVERLAY, action=Action.RESTORED, bytes=64),
        row(7, Verdict.FOREIGN, Reason.FOREIGN_NAME, bytes=128),
    ]
    found = told(report(*rows, quarantined=40, quarantined_files=2, reclaimed_ever=9))
    assert found["cache"] == {
        "files": 6,
        "bytes": 1 + 2 + 4 + 16 + 64 + 128,
        "reclaimableFiles": 3,
        "reclaimableBytes": 1 + 2 + 16,
        "quarantinedFiles": 2,
        "quarantinedBytes": 40,
        "reclaimedBytes": 9,
    }
    assert found["reclaimable"] == "19 B"
    assert found["lastPass"]["held"] == {"LimitReached": 1, "UnknownUsage": 1}


SPAWN = Reason.SPAWN_IN_PROGRESS
ALONE: dict[str, tuple[list[Row], bool]] = {
    "a removal": ([row(0, Verdict.HOLD, SPAWN)], True),
    "a purge": ([row(0, Verdict.HOLD, SPAWN, entry="entry")], True),
    "a removal beside a conflict that lasts": (
        [row(0, Verdict.HOLD, SPAWN), row(1, Verdict.HOLD, Reason.CONFLICT, entry="entry")],
        True,
    ),
    "not alone": ([row(0, Verdict.HOLD, SPAWN), row(1, Verdict.HOLD, Reason.UNKNOWN_USAGE)], False),
    "nothing": ([row(0), row(1, Verdict.REMOVE, Reason.EXPIRED)], False),
}


@pytest.mark.parametrize(("rows", "alone"), ALONE.values(), ids=ALONE)
def test_a_pass_that_starting_instances_held_is_known(rows: list[Row], alone: bool) -> None:
    assert report(*rows).spawns_alone is alone


# News


SAME = report(row(0, removable_at=NOW + HOUR), seconds=Seconds(1, 2, 3))
NEWS: dict[str, tuple[Report, Capacity, bool]] = {
    "nothing": (SAME, DISK, False),
    "another time": (replace(SAME, time=NOW + HOUR), DISK, False),
    "other seconds": (replace(SAME, seconds=Seconds(9, 9, 9)), DISK, False),
    "a little more room": (SAME, replace(DISK, available=DISK.available + 9 * 10**9), False),
    "a hundredth less room": (SAME, replace(DISK, available=DISK.available - 10**10), True),
    "a larger file system": (SAME, replace(DISK, size=DISK.size + 1), True),
    "another file": (report(row(1, removable_at=NOW + HOUR)), DISK, True),
    "another age": (report(row(0, removable_at=NOW + DAY)), DISK, True),
    "another mode": (replace(SAME, policy=replace(ENFORCE, mode=Mode.AUDIT)), DISK, True),
    "a hold": (replace(SAME, holds=(Hold(Reason.UNKNOWN_USAGE, "unread"),)), DISK, True),
    "bytes freed": (replace(SAME, reclaimed_ever=1), DISK, True),
    "a failure": (replace(SAME, error="no"), DISK, True),
}


@pytest.mark.parametrize(("made", "disk", "news"), NEWS.values(), ids=NEWS)
def test_only_news_is_worth_a_write(made: Report, disk: Capacity, news: bool) -> None:
    there = told(SAME)
    assert differs(told(made, there, disk=disk, now=NOW + 100), there) is news


@pytest.mark.parametrize("changed", [order(generation=8), order({**SPEC, "policy": {**ORIGIN, "generation": 5}})])
def test_another_generation_is_news(changed: Order) -> None:
    there = told(SAME)
    assert differs(told(SAME, there, by=changed), there)


def test_room_that_comes_and_goes_is_written_once() -> None:
    there, written = told(SAME), 0
    for step in range(40):
        now = told(SAME, there, disk=replace(DISK, available=DISK.available + (step % 2) * 6 * 10**9))
        if differs(now, there):
            there, written = now, written + 1
    assert written == 0


def test_a_heartbeat_is_no_news_and_says_when() -> None:
    there = told(SAME)
    later = beaten(there, NOW + HOUR)
    assert not differs(later, there)
    assert (later["heartbeatTime"], there["heartbeatTime"]) == ("2027-01-15T09:00:00Z", "2027-01-15T08:00:00Z")


# Conditions


def test_every_condition_is_told_of_every_pass_in_one_order() -> None:
    for made in CROWDED.values():
        assert [item["type"] for item in told(made)["conditions"]] == [kind.value for kind in NodeCondition]


CONDITIONS: dict[str, tuple[Report, NodeCondition, tuple[str, str]]] = {
    "a pass": (report(), NodeCondition.READY, ("True", "PassEnded")),
    "a file that failed": (
        report(row(0, Verdict.REMOVE, Reason.EXPIRED, action=Action.FAILED, error="no room")),
        NodeCondition.READY,
        ("False", "PassFailed"),
    ),
    "libvirt answers": (report(), NodeCondition.LIBVIRT_REACHABLE, ("True", "Reachable")),
    "libvirt hangs": (report(libvirt_failure="hangs"), NodeCondition.LIBVIRT_REACHABLE, ("False", "Unreachable")),
    "no libvirt": (report(libvirt_asked=False), NodeCondition.LIBVIRT_REACHABLE, ("Unknown", "NotAsked")),
    "others are there": (report(shared=Shared("nfs")), NodeCondition.SHARED_STORAGE, ("True", "Shared")),
    "others are there and agree": (
        report(shared=Shared("all answered", holds=False), group=GROUP),
        NodeCondition.SHARED_STORAGE,
        ("True", "Coordinating"),
    ),
    "others are there and one is silent": (
        report(shared=Shared("host b has not answered"), group=GROUP),
        NodeCondition.SHARED_STORAGE,
        ("True", "Waiting"),
    ),
    "nobody else": (report(), NodeCondition.SHARED_STORAGE, ("False", "NotShared")),
    "an anomaly": (
        report(trips=(tripped(Reason.CLOCK_JUMPED, "forward"),)),
        NodeCondition.BREAKER_CLOSED,
        ("False", "ClockJumped"),
    ),
    "no anomaly": (report(), NodeCondition.BREAKER_CLOSED, ("True", "Closed")),
    "nothing held": (report(row()), NodeCondition.HOLDING, ("False", "NothingHeld")),
    "what passes by itself comes last": (
        report(holds=(Hold(Reason.LIMIT_REACHED, ""), Hold(SPAWN, ""), Hold(Reason.UNKNOWN_USAGE, ""))),
        NodeCondition.HOLDING,
        ("True", "UnknownUsage"),
    ),
    "a late look held a file": (
        report(row(0, Verdict.HOLD, Reason.UNKNOWN_USAGE, action=Action.SKIPPED)),
        NodeCondition.HOLDING,
        ("True", "UnknownUsage"),
    ),
}


@pytest.mark.parametrize(("made", "kind", "said"), CONDITIONS.values(), ids=CONDITIONS)
def test_a_condition_says_what_the_pass_saw(made: Report, kind: NodeCondition, said: tuple[str, str]) -> None:
    assert condition(told(made), kind) == said


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    def since(found: dict[str, Any]) -> dict[str, str]:
        return {item["type"]: item["lastTransitionTime"] for item in found["conditions"]}

    first = told(report())
    held = told(report(holds=(Hold(Reason.UNKNOWN_USAGE, ""),)), first, now=NOW + HOUR)
    other = told(report(holds=(Hold(Reason.IMAGE_UNKNOWN, ""),)), held, now=NOW + 2 * HOUR)
    assert since(held) == {**since(first), "Holding": "2027-01-15T09:00:00Z"}
    assert since(other) == since(held)


def test_a_pass_that_failed_as_a_whole_keeps_what_was_known_and_says_that_it_failed() -> None:
    rows = [row(0, Verdict.HOLD, Reason.UNKNOWN_USAGE), *(row(number) for number in range(1, 40))]
    good = report(
        *rows,
        holds=(Hold(Reason.UNKNOWN_USAGE, "unread", "a/disk"),),
        trips=(tripped(Reason.OTHER_DIRECTORY, "gone"),),
        reclaimed_ever=5,
    )
    before = told(good)
    after = told(report(error="the ledger is full"), before, by=order(generation=8), now=NOW + HOUR)
    for field in ("cache", "reclaimable", "fileSystem", "holds", "filesTruncated"):
        assert after[field] == before[field]
    assert after["files"] == before["files"][: len(after["files"])]
    assert (condition(after, NodeCondition.READY), after["lastPass"]["error"]) == (
        ("False", "PassFailed"),
        "the ledger is full",
    )
    for kind in (NodeCondition.BREAKER_CLOSED, NodeCondition.HOLDING, NodeCondition.LIBVIRT_REACHABLE):
        assert [item for item in after["conditions"] if item["type"] == kind] == [
            item for item in before["conditions"] if item["type"] == kind
        ]


@pytest.mark.parametrize("before", [{}, without_pass(order({}), HOST, {}, NOW)], ids=["never", "no policy"])
def test_what_no_pass_has_seen_yet_is_unknown(before: dict[str, Any]) -> None:
    found = told(report(error="no"), before)
    for kind in set(NodeCondition) - {NodeCondition.READY, NodeCondition.POLICY_APPLIED}:
        assert condition(found, kind) == ("Unknown", "PassFailed")


def test_a_node_without_a_policy_dates_what_was_last_seen_and_knows_nothing_else() -> None:
    before = told(SAME)
    found = without_pass(order({}, generation=9), HOST, before, NOW + HOUR)
    assert wrongs(found, SCHEMA) == []
    assert {key: found[key] for key in ("lastPass", "cache")} == {key: before[key] for key in ("lastPass", "cache")}
    assert (found["files"], found["holds"], found.get("policy"), found["observedGeneration"]) == ([], [], None, 9)
    assert condition(found, NodeCondition.POLICY_APPLIED) == ("False", Why.NO_POLICY)
    assert {condition(found, kind) for kind in set(NodeCondition) - {NodeCondition.POLICY_APPLIED}} == {
        ("Unknown", "NoPolicy")
    }


def test_a_spec_that_is_not_understood_is_told() -> None:
    found = told(report(), by=order({**SPEC, "notYetKnown": True}))
    assert condition(found, NodeCondition.POLICY_APPLIED) == ("False", "NotUnderstood")
    assert found["policy"] == ORIGIN
