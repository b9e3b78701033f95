"""What is known of objects: the newest of what was heard, listed and written, and no ghosts."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.controller import snapshots
from basekeeper.controller.snapshots import Node
from basekeeper.controller.store import Kind, Store


def found(name: str = "a", version: int = 1, uid: str = "first", **labels: str) -> dict[str, Any]:
    """A Node as the API server gives it."""
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}}


class Known:
    """A store of Nodes."""

    def __init__(self) -> None:
        self.changes = 0
        self.kind: Kind[Node] = Kind(snapshots.node, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def heard(self, kind: str | None, name: str = "a", version: int = 1, uid: str = "first", **labels: str) -> None:
        """Take an event."""
        self.kind.heard({"type": kind, "object": found(name, version, uid, **labels)})

    def listed(self, version: int, *items: dict[str, Any]) -> None:
        """Take a list."""
        self.kind.listed({item["metadata"]["name"]: snapshots.node(item) for item in items}, version)

    def wrote(self, version: int, **labels: str) -> None:
        """Take what a write of ours made."""
        self.kind.wrote(snapshots.node(found("a", version, **labels)))

    @property
    def now(self) -> dict[str, tuple[int, str]]:
        """What is known: version and uid."""
        return {name: (item.version, item.uid) for name, item in self.kind.all().items()}


@pytest.fixture
def known() -> Known:
    return Known()


def test_an_older_event_never_overwrites_a_newer_one(known: Known) -> None:
    known.heard("MODIFIED", version=9)
    known.heard("MODIFIED", version=8)
    assert known.now == {"a": (9, "first")}


def test_a_deletion_that_is_older_than_the_recreation_is_ignored(known: Known) -> None:
    known.heard("ADDED", version=1)
    known.heard("ADDED", version=7, uid="second")
    known.heard("DELETED", version=5)
    assert known.now == {"a": (7, "second")}


def test_what_happened_before_a_deletion_and_comes_after_it_is_no_ghost(known: Known) -> None:
    known.heard("ADDED", version=1)
    known.heard("DELETED", version=5)
    known.heard("MODIFIED", version=4)
    known.wrote(version=3)
    assert known.now == {}
    known.heard("ADDED", version=6, uid="second")
    assert known.now == {"a": (6, "second")}


def test_a_list_removes_ghosts_but_not_what_is_newer_than_the_list(known: Known) -> None:
    known.heard(None, "ghost", version=3)
    known.heard("ADDED", "new", version=12)
    known.heard("MODIFIED", version=11)
    known.listed(10, found("a", 9), found("b", 2))
    assert known.now == {"a": (11, "first"), "b": (2, "first"), "new": (12, "first")}


def test_what_was_deleted_while_a_list_was_read_does_not_come_back_with_it(known: Known) -> None:
    known.heard("ADDED", version=3)
    known.heard("DELETED", version=11)
    known.listed(10, found("a", 3))
    assert known.now == {}


def test_an_event_from_before_a_list_that_lacks_the_object_is_no_ghost(known: Known) -> None:
    known.listed(10)
    known.heard("MODIFIED", version=8)
    assert known.now == {}
    known.heard("ADDED", version=11)
    assert known.now == {"a": (11, "first")}


def test_a_cluster_that_was_restored_from_a_backup_is_believed(known: Known) -> None:
    known.listed(1000, found("a", 900), found("b", 901))
    known.heard("DELETED", "b", version=1001)
    known.listed(500, found("b", 400))
    assert known.now == {"b": (400, "first")}


def test_an_event_knows_more_than_the_write_that_it_is_about(known: Known) -> None:
    known.heard("ADDED", version=1)
    known.heard("MODIFIED", version=5, seen="by the event")
    known.wrote(version=5)
    assert known.kind.all()["a"].labels == {"seen": "by the event"}
    known.wrote(version=6, seen="by us")
    assert known.kind.all()["a"].labels == {"seen": "by us"}
    known.heard("MODIFIED", version=6, seen="by both")
    assert known.kind.all()["a"].labels == {"seen": "by both"}


def test_what_we_deleted_is_gone_until_it_is_made_anew(known: Known) -> None:
    known.heard("ADDED", version=5)
    known.kind.deleted("a")
    known.kind.deleted("never known")
    known.heard("MODIFIED", version=4)
    assert known.now == {}
    known.heard("ADDED", version=8, uid="second")
    assert known.now == {"a": (8, "second")}


def test_only_what_makes_a_difference_wakes_the_controller(known: Known) -> None:
    known.heard("ADDED", version=1)
    assert known.changes == 1
    known.heard("MODIFIED", version=2)
    known.heard("MODIFIED", version=1, label="old")
    known.heard("DELETED", "unknown", version=2)
    known.listed(2, found(version=2))
    assert known.changes == 1
    known.heard("MODIFIED", version=3, label="new")
    assert known.changes == 2
    known.listed(4)
    assert known.changes == 3


def test_a_pod_that_ended_is_no_agent() -> None:
    store = Store(lambda: None)
    pod = {"metadata": {"name": "p", "resourceVersion": "1"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}}
    store.pods.heard({"type": "ADDED", "object": pod})
    assert store.world().agents == {"a"}
    ended = pod | {"metadata": {"name": "p", "resourceVersion": "2"}, "status": {"phase": "Failed"}}
    store.pods.heard({"type": "MODIFIED", "object": ended})
    assert store.world().agents == frozenset()
    store.pods.heard({"type": "MODIFIED", "object": pod})
    assert store.world().agents == frozenset()


class Step(NamedTuple):
    """One change on the server."""

    name: str
    deleted: bool
    uid: str
    version: int


def _history(wishes: list[tuple[str, bool]]) -> list[Step]:
    """What can have happened: only what is there is deleted, and what is made again has another uid."""
    there: dict[str, str] = {}
    steps = []
    for version, (name, deleted) in enumerate(wishes, start=1):
        if deleted and name not in there:
            continue
        uid = there.pop(name) if deleted else there.setdefault(name, f"{name}-{version}")
        steps.append(Step(name, deleted, uid, version))
    return steps


def _server(history: list[Step], version: int) -> dict[str, Step]:
    state: dict[str, Step] = {}
    for step in history:
        if step.version <= version:
            state.pop(step.name, None)
            if not step.deleted:
                state[step.name] = step
    return state


HISTORIES = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=12).map(_history)


@given(HISTORIES, st.data())
def test_whatever_comes_late_twice_or_beside_lists_the_newest_is_known(
    history: list[Step], data: st.DataObject
) -> None:
    known = Known()
    events = data.draw(st.permutations([*history, *history[::2]]))
    lists = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    for place, step in enumerate(events):
        for version in lists[:]:
            if version <= place:
                lists.remove(version)
                _deliver_list(known, history, version)
        known.heard("DELETED" if step.deleted else "MODIFIED", step.name, step.version, step.uid)
    assert known.now == {name: (step.version, step.uid) for name, step in _server(history, 10**6).items()}


@given(HISTORIES, st.data())
def test_what_was_missed_is_known_after_a_list(history: list[Step], data: st.DataObject) -> None:
    known = Known()
    for step in history:
        if data.draw(st.booleans()):
            known.heard("DELETED" if step.deleted else "MODIFIED", step.name, step.version, step.uid)
    _deliver_list(known, history, 10**6)
    assert known.now == {name: (step.version, step.uid) for name, step in _server(history, 10**6).items()}


def _deliver_list(known: Known, history: list[Step], version: int) -> None:
    known.listed(version, *(found(step.name, step.version, step.uid) for step in _server(history, version).values()))


def test_events_lists_and_writes_at_once_leave_the_newest() -> None:
    known = Known()
    last = 300

    def versions(start: int) -> Iterator[int]:
        return iter(range(start, last + 1, 3))

    def hear() -> None:
        for version in versions(1):
            known.heard("MODIFIED", version=version)

    def write() -> None:
        for version in versions(2):
            known.wrote(version)

    def list_all() -> None:
        for version in versions(3):
            known.listed(version, found("a", version))

    threads = [threading.Thread(target=work) for work in (hear, write, list_all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert known.now == {"a": (last, "first")}
