"""What is deleted is obeyed also by those who could not see it go, and nothing of ours ever hinders a deletion."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ApiError, ControlPlane
from lab.nova_tree import DAY
from lab.proxy import Fault
from tests.cluster import outages
from tests.cluster.fleet import (
    CACHES,
    NAMESPACE,
    POLICIES,
    Fleet,
    Object,
    Program,
    eventually,
    install,
    is_condition,
)
from tests.cluster.outages import await_ready, await_unready, furnish, is_alive, is_ready, tell

NODES = "/api/v1/nodes"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def _unused(fleet: Fleet, node: str, name: str = "later") -> Path:
    return fleet.tree(node).add_base(f"{name}-{node}", age=3 * DAY, seed=5)


def _was_told_that_it_is_gone(agent: Program) -> bool:
    page = agent.ask("/metrics")[1]
    return any("api_requests_total" in line and '"404"' in line and '"GET"' in line for line in page.splitlines())


def _is_gone(fleet: Fleet, path: str) -> bool:
    try:
        fleet.cluster.api("GET", path)
    except ApiError as error:
        return error.status == 404
    return False


def test_what_is_deleted_while_every_watch_is_down_is_obeyed_and_leaves_no_ghost(fleet: Fleet) -> None:
    nodes = ("node-a", "node-b", "node-c")
    with outages.proxies(fleet, 4) as (*before_agents, before_controller):
        unused = [furnish(fleet, node)[1] for node in nodes]
        behind = dict(zip(nodes, before_agents, strict=True))
        agents = {node: outages.start_behind(behind[node], fleet, node) for node in nodes}
        controller = fleet.start_controller(server=before_controller.url, ca=before_controller.ca_file)
        fleet.apply("compute", mode="Enforce")
        eventually(lambda: len(fleet.caches()) == 3, "all have objects")
        outages.all_gone(unused)
        for node in nodes:
            outages.reported(fleet, node, 1)
        for program in (*agents.values(), controller):
            await_ready(program)

        for proxy in (*before_agents, before_controller):
            proxy.switch(Fault.REFUSE)
        for program in (*agents.values(), controller):
            await_unready(program)
        fleet.delete(f"{POLICIES}/compute")
        fleet.delete(f"{CACHES}/node-b")
        fleet.delete(f"{NODES}/node-c")
        fleet.delete(f"{PODS}/agent-node-c")
        kept = [_unused(fleet, node) for node in nodes]
        # It starts with an empty watch cache: who comes back has to list, and a list without objects gives no event.
        fleet.cluster.kill_api_server()
        fleet.cluster.start_api_server()
        for proxy in (*before_agents, before_controller):
            proxy.switch(Fault.PASS)

        eventually(lambda: set(fleet.caches()) == {"node-a", "node-b"}, "the object of the deleted node goes")
        eventually(lambda: not any(item["spec"] for item in fleet.caches().values()), "nobody is told anything")
        for node in ("node-a", "node-b"):
            _await_idle(fleet, node)
        for program in (*agents.values(), controller):
            assert is_alive(program)
        await_ready(controller)
        assert 'basekeeper_nodes{state="Current"} 0.0' in controller.ask("/metrics")[1]
        assert all(path.exists() for path in kept)

        # The same name once more is another policy, which nothing of the old one haunts.
        made = fleet.apply("compute", mode="Audit")["metadata"]["uid"]
        eventually(lambda: {item["spec"]["policy"]["uid"] for item in fleet.caches().values()} == {made}, "told anew")
        fleet.apply("other", mode="Audit", priority=1)
        eventually(lambda: fleet.policy("other")["status"]["nodes"]["matched"] == 2, "the roll-up")
        rows = fleet.policy("other")["status"]["nodeStatuses"]
        assert sorted(row["node"] for row in rows) == ["node-a", "node-b"]
        assert all(path.exists() for path in kept)


def test_an_object_that_vanished_unseen_ends_removals_before_the_next_pass(fleet: Fleet) -> None:
    _, unused = furnish(fleet, "node-a")
    tell(fleet, "node-a")
    with outages.proxies(fleet, 1) as (proxy,):
        agent = outages.start_behind(proxy, fleet, "node-a")
        outages.all_gone([unused])
        await_ready(agent)
        proxy.switch(Fault.REFUSE)
        fleet.delete(f"{CACHES}/node-a")
        proxy.switch(Fault.PASS)
        eventually(lambda: _was_told_that_it_is_gone(agent), "it asks", outages.PATIENCE)
        kept = _unused(fleet, "node-a")
        assert agent.stop() == 0

        # What it was told is forgotten for good, also for times when the API server is away.
        proxy.switch(Fault.REFUSE)
        agent.start()
        eventually(lambda: agent.said.count("started") == 2 and is_alive(agent), "it runs")
        eventually(lambda: "waiting for the API server" in agent.said, "it tries")
        assert kept.exists()
        assert "never told anything" not in agent.said
        assert list(outages.await_removals(agent, 1).values()) == [1]


def test_nothing_ever_carries_a_finalizer_or_a_note_of_ours_and_no_order_of_deletion_hangs(fleet: Fleet) -> None:
    nodes = ("node-a", "node-b")
    unused = [furnish(fleet, node)[1] for node in nodes]
    agents = {node: fleet.start_agent(node) for node in nodes}
    controller = fleet.start_controller()
    fleet.apply("compute", mode="Enforce")
    fleet.apply("loser", mode="Audit", priority=-1)
    eventually(lambda: len(fleet.caches()) == 2, "all have objects")
    for node in nodes:
        fleet.run_now(node, "please")
    outages.all_gone(unused)
    for node in nodes:
        outages.reported(fleet, node, 1)
    fleet.label("node-a", zone="b")
    eventually(lambda: fleet.policy("compute")["status"]["nodeStatuses"], "the roll-up")
    _assert_clean(fleet)

    # Policy first, while everything runs; then a node's object, which comes back; then all the rest at once.
    fleet.delete(f"{POLICIES}/compute")
    assert _is_gone(fleet, f"{POLICIES}/compute")
    uid = fleet.cache("node-a")["metadata"]["uid"]
    fleet.delete(f"{CACHES}/node-a")
    eventually(lambda: fleet.cache("node-a")["metadata"]["uid"] != uid, "it is made again")
    _assert_clean(fleet)
    assert controller.stop() == 0
    fleet.delete(f"{CACHES}/node-b")
    assert _is_gone(fleet, f"{CACHES}/node-b")
    for agent in agents.values():
        assert agent.stop() == 0
    _assert_clean(fleet)
    fleet.delete(f"{POLICIES}/loser")
    for path in (f"{CACHES}/node-a", f"{POLICIES}/loser", f"{NODES}/node-a", f"{PODS}/agent-node-a"):
        if path != f"{POLICIES}/loser":
            fleet.delete(path)
        assert _is_gone(fleet, path)


def _await_idle(fleet: Fleet, node: str) -> None:
    eventually(lambda: is_condition(fleet.cache(node), "PolicyApplied", "False", "NoPolicy"), f"{node} stops")


def _assert_clean(fleet: Fleet) -> None:
    for path in (POLICIES, CACHES, NODES, PODS, "/api/v1/namespaces"):
        for item in fleet.cluster.api("GET", path)["items"]:
            assert _marks(item) <= {"basekeeper.io/run-now"}, item["metadata"]


def _marks(item: Object) -> set[str]:
    metadata = item["metadata"]
    notes = set(metadata.get("annotations", {})) | set(metadata.get("finalizers", []))
    return {note for note in notes if "basekeeper" in note or "kopf" in note or "zalando" in note}


def test_programs_find_definitions_that_come_late_or_come_back(fleet: Fleet) -> None:
    try:
        _remove_definitions(fleet)
        _, unused = furnish(fleet, "node-a")
        agent, controller = fleet.start_agent("node-a"), fleet.start_controller()
        for program in (agent, controller):
            _await_waiting(program)
            assert is_alive(program)
            assert not is_ready(program)
        install(fleet.cluster)
        fleet.apply("compute", mode="Enforce")
        outages.all_gone([unused])
        outages.reported(fleet, "node-a", 1)
        for program in (agent, controller):
            await_ready(program)

        _remove_definitions(fleet)
        kept = _unused(fleet, "node-a")
        for program in (agent, controller):
            await_unready(program)
            assert is_alive(program)
        install(fleet.cluster)
        fleet.apply("compute", mode="Audit")
        outages.reported(fleet, "node-a", 1)
        for program in (agent, controller):
            await_ready(program)
            assert is_alive(program)
        assert kept.exists()
        fleet.apply("compute", mode="Enforce")
        outages.all_gone([kept])
        assert sorted(outages.await_removals(agent, 2).values()) == [1, 1]
    finally:
        install(fleet.cluster)


def _await_waiting(program: Program) -> None:
    eventually(lambda: "to serve" in program.said, f"{program.name} waits")


def _remove_definitions(fleet: Fleet) -> None:
    for kind in ("imagecachepolicies", "nodeimagecaches"):
        fleet.delete(f"{CRDS}/{kind}.basekeeper.io")
    eventually(lambda: _is_gone(fleet, POLICIES) and _is_gone(fleet, CACHES), "the definitions are gone")
