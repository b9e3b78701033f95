"""What the controller shows of itself, and which failures of the API server are its own trouble."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest

from basekeeper.cluster.api import ApiAway, ApiError, NotFound, Resource
from basekeeper.cluster.connection import Connection
from basekeeper.cluster.kinds import POLICIES
from basekeeper.controller import program
from basekeeper.controller.program import Controller, Setup
from basekeeper.controller.writers import write_all
from tests.unit.controlling import FAILS, cache, node, policy, report

NODES = ("node-0", "node-1", "node-2")


@dataclass
class Server:
    """Takes what is written, or refuses it."""

    refusal: ApiError | None = None
    """Of writes to policies' statuses."""
    written: list[str] = field(default_factory=list)
    version: int = 100

    def apply(
        self, resource: Resource, name: str, content: Mapping[str, Any], *, subresource: str | None = None
    ) -> dict[str, Any]:
        assert (subresource == "status") == (resource == POLICIES)
        assert set(content) <= {"metadata", "spec", "status"}
        if resource == POLICIES and self.refusal is not None:
            raise self.refusal
        self.written.append(name)
        self.version += 1
        uid = f"uid-{'' if resource == POLICIES else 'cache-'}{name}"
        return {**content.get("metadata", {}), "name": name, "uid": uid, "generation": 1,
                "resourceVersion": str(self.version)}  # fmt: skip


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def controller(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    """A controller that knows one policy, for one node at a time, and three nodes."""
    monkeypatch.setattr(program, "_STATUS_SETTLES", 0.0)
    kubeconfig = tmp_path / "kubeconfig"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig.write_text(json.dumps(config))
    made = Controller(Setup("basekeeper", "app=agent", "127.0.0.1:0"), Connection(kubeconfig))
    monkeypatch.setattr(made._api, "apply", server.apply)
    made._store.policies.wrote(policy(rollout={"maxNodesPerInterval": 1}))
    for name in NODES:
        made._store.nodes.wrote(node(name))
        made._store.caches.wrote(cache(name, status=report(None, 1)))
    yield made
    made._probes._server.server_close()


def shown(controller: Controller, name: str, **labels: str) -> float | None:
    return controller._metrics.registry.get_sample_value(f"basekeeper_{name}", labels)


def test_policies_nodes_and_the_rollout_are_shown(controller: Controller) -> None:
    controller._reconcile()
    assert [shown(controller, name) for name in ("policies", "rollout_waiting_nodes", "rollout_stopped")] == [1, 2, 0]
    assert [shown(controller, "nodes", state=state) for state in ("Pending", "Waiting", "Current")] == [1, 2, 0]


def test_a_rollout_that_trouble_stops_is_shown_as_that_until_it_is_over(controller: Controller) -> None:
    controller._reconcile()
    specs = {item: item.spec for item in controller._store.caches.all().values()}
    (told,) = [item for item, spec in specs.items() if spec and spec.rollout and not spec.rollout.waiting]
    for at, (said, stopped) in enumerate((((FAILS,), 1), ((), 0)), 200):
        reported = cache(told.name, status=report(policy(), 1, *said))
        controller._store.caches.wrote(changed(told, said=reported.said, version=at))
        controller._reconcile()
        assert shown(controller, "rollout_stopped") == stopped
    assert shown(controller, "nodes", state="Failing") == 0


def test_a_status_that_cannot_be_written_lags_until_it_is(controller: Controller, server: Server) -> None:
    assert shown(controller, "rollup_lag_seconds") == 0
    server.refusal = ApiAway("the API server does not answer")
    with pytest.raises(ApiAway):
        controller._reconcile()
    time.sleep(0.2)
    with pytest.raises(ApiAway):
        controller._reconcile()
    assert (shown(controller, "rollup_lag_seconds") or 0) >= 0.2
    server.refusal = None
    controller._reconcile()
    assert shown(controller, "rollup_lag_seconds") == 0


def test_a_policy_that_was_deleted_meanwhile_is_no_trouble(controller: Controller, server: Server) -> None:
    server.refusal = NotFound("the API server answers 404: not found")
    controller._reconcile()
    assert sorted(server.written) == [*NODES]
    controller._store.policies.deleted("compute")
    controller._reconcile()
    assert (shown(controller, "policies"), shown(controller, "rollup_lag_seconds")) == (0, 0)


# Writers


def nothing() -> None:
    """Is told of writes."""


def test_every_item_is_written_and_what_could_not_be_is_told() -> None:
    written: set[int] = set()

    def write(number: int) -> None:
        if number % 10 == 3:
            raise ApiAway(str(number))
        written.add(number)

    failures = write_all(write, range(40), threading.Event(), nothing)
    assert written == {number for number in range(40) if number % 10 != 3}
    assert sorted(str(failure) for failure in failures) == ["13", "23", "3", "33"]


def test_an_error_that_nobody_foresaw_is_told_after_all_others_were_written() -> None:
    written: set[int] = set()

    def write(number: int) -> None:
        if number == 0:
            raise LookupError("nobody foresaw this")
        written.add(number)

    with pytest.raises(LookupError):
        write_all(write, range(20), threading.Event(), nothing)
    assert written == set(range(1, 20))


def test_once_it_is_to_stop_what_was_begun_is_ended_and_nothing_else_is_begun() -> None:
    stopping, begun, ended = threading.Event(), [], []

    def write(number: int) -> None:
        begun.append(number)
        stopping.wait()
        time.sleep(0.01)
        ended.append(number)

    threading.Timer(0.2, stopping.set).start()
    assert write_all(write, range(100), stopping, nothing) == []
    assert 0 < len(begun) == len(ended) < 100
