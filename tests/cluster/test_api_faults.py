"""While the API server fails, each node goes on under what it was last told; when it is back, everything finds it."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY
from lab.proxy import Fault
from tests.cluster import outages
from tests.cluster.fleet import DEPLOY, Fleet, Program, eventually, is_condition
from tests.cluster.outages import (
    OUTAGE,
    PATIENCE,
    GrowingDeaf,
    await_ready,
    await_unready,
    furnish,
    is_alive,
    ripen,
    tell,
)


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def test_agents_go_on_while_the_api_server_is_killed_and_remove_nothing_twice(fleet: Fleet) -> None:
    nodes = ("node-a", "node-b")
    bases = {node: furnish(fleet, node) for node in nodes}
    for node in nodes:
        tell(fleet, node)
    agents = {node: fleet.start_agent(node) for node in nodes}
    outages.all_gone(unused for _, unused in bases.values())
    for node, agent in agents.items():
        outages.reported(fleet, node, 1)
        await_ready(agent)

    fleet.cluster.kill_api_server()
    away_until = time.monotonic() + OUTAGE
    meanwhile = [ripen(fleet, node, "meanwhile", OUTAGE / 3) for node in nodes]
    used_before = {node: outages.processor_seconds(agent) for node, agent in agents.items()}
    outages.all_gone(meanwhile, OUTAGE)
    for agent in agents.values():
        await_unready(agent)
        assert "the watch on this node's NodeImageCache is down" in agent.ask("/readyz")[1]
    time.sleep(max(0.0, away_until - time.monotonic()))
    for node, agent in agents.items():
        assert outages.processor_seconds(agent) - used_before[node] < OUTAGE / 3
    fleet.cluster.start_api_server()

    for node, agent in agents.items():
        outages.reported(fleet, node, 2)
        await_ready(agent)
        assert is_alive(agent)
        assert sorted(outages.await_removals(agent, 2).values()) == [1, 1]
        assert outages.quarantined(fleet, node) == sorted(outages.removals(agent))
        assert bases[node][0].exists()
        assert agent.stop() == 0


def test_the_controller_comes_back_after_a_killed_api_server(fleet: Fleet) -> None:
    _, unused = furnish(fleet, "node-a")
    agent, controller = fleet.start_agent("node-a"), fleet.start_controller()
    fleet.apply("compute", mode="Enforce")
    eventually(lambda: fleet.cache("node-a")["spec"]["mode"] == "Enforce", "the node is told")
    fleet.run_now("node-a", "please")
    outages.all_gone([unused])
    outages.reported(fleet, "node-a", 1)
    await_ready(controller)

    fleet.cluster.kill_api_server()
    before = outages.processor_seconds(controller)
    await_unready(controller)
    time.sleep(OUTAGE)
    assert outages.processor_seconds(controller) - before < OUTAGE / 3
    fleet.cluster.start_api_server()

    told = fleet.apply("compute", mode="Enforce", suspend=True)["metadata"]["generation"]
    eventually(lambda: fleet.cache("node-a")["spec"]["suspend"], "the node is told", PATIENCE)
    fleet.run_now("node-a", "again")
    eventually(
        lambda: (
            (found := fleet.policy("compute"))["status"]["observedGeneration"] == told
            and is_condition(found, "Ready", "True")
        ),
        "the roll-up",
        PATIENCE,
    )
    for program in (agent, controller):
        await_ready(program)
        assert is_alive(program)
    assert list(outages.await_removals(agent, 1).values()) == [1]
    assert (controller.stop(), agent.stop()) == (0, 0)


def test_no_way_to_fail_stops_an_agent_or_hides_anything_from_it_for_long(fleet: Fleet) -> None:
    """All at once, because some of it takes a minute: faults that everybody sees, and watches that fall silent."""
    faults = dict(zip(("node-a", "node-b", "node-c", "node-d"), list(Fault)[1:], strict=True))
    assert Fault.PASS not in faults.values()
    nodes = (*faults, "node-e", "node-f")
    with outages.proxies(fleet, len(nodes)) as made:
        behind = dict(zip(nodes, made, strict=True))
        bases = {node: furnish(fleet, node) for node in nodes}
        for node in nodes:
            tell(fleet, node, interval="24h" if node == "node-f" else "2s")
        agents = {node: outages.start_behind(behind[node], fleet, node) for node in nodes}
        outages.all_gone(unused for _, unused in bases.values())
        for node, agent in agents.items():
            outages.reported(fleet, node, 1)
            await_ready(agent)

        for node in ("node-e", "node-f"):
            behind[node].silence()
        time.sleep(1)  # a pass that has asked already may end
        tell(fleet, "node-e", mode="Audit")
        hidden = ripen(fleet, "node-e", "hidden", 0)
        told = tell(fleet, "node-f", interval="24h", mode="Audit")["metadata"]["generation"]
        _fail_and_return(fleet, {node: (fault, behind[node], agents[node]) for node, fault in faults.items()})
        assert all(used.exists() for used, _ in bases.values())

        eventually(lambda: fleet.cache("node-e")["status"]["lastPass"]["mode"] == "Audit", "the next pass asks")
        assert hidden.exists()
        eventually(lambda: fleet.cache("node-f")["status"]["observedGeneration"] == told, "the watch heals", 100.0)
        for agent in agents.values():
            await_ready(agent)
            assert is_alive(agent)


def _fail_and_return(fleet: Fleet, faults: dict[str, tuple[Fault, GrowingDeaf, Program]]) -> None:
    began = time.monotonic()
    meanwhile = {node: ripen(fleet, node, "meanwhile", OUTAGE / 3) for node in faults}
    used_before = {node: outages.processor_seconds(agent) for node, (_, _, agent) in faults.items()}
    for fault, proxy, _ in faults.values():
        proxy.switch(fault)
    # Those that fail at once go first: where requests hang, the first one takes its half minute.
    for node, (_, proxy, agent) in sorted(faults.items(), key=lambda item: item[1][0] in {Fault.HANG, Fault.FREEZE}):
        outages.all_gone([meanwhile[node]])
        await_unready(agent)
        assert is_alive(agent)
        time.sleep(max(0.0, began + OUTAGE - time.monotonic()))
        assert outages.processor_seconds(agent) - used_before[node] < (time.monotonic() - began) / 3
        proxy.switch(Fault.PASS)
    for node, (_, _, agent) in faults.items():
        outages.reported(fleet, node, 2)
        assert sorted(outages.await_removals(agent, 2).values()) == [1, 1]


def test_an_agent_that_starts_while_the_api_server_is_away_uses_what_it_was_told(fleet: Fleet) -> None:
    with outages.proxies(fleet, 2) as (known, new):
        _, unused = furnish(fleet, "node-a")
        furnish(fleet, "node-b")
        tell(fleet, "node-a")
        tell(fleet, "node-b")
        agent = outages.start_behind(known, fleet, "node-a")
        outages.all_gone([unused])
        assert agent.stop() == 0

        for proxy in (known, new):
            proxy.switch(Fault.REFUSE)
        meanwhile = ripen(fleet, "node-a", "meanwhile", 0)
        before = outages.everything(fleet, "node-b")
        agent.start()
        never_told = outages.start_behind(new, fleet, "node-b")
        outages.all_gone([meanwhile])
        eventually(lambda: "waiting for the API server" in never_told.said, "it tries")
        assert never_told.ask("/readyz") == (503, "the API server has not answered yet\n")
        assert is_alive(never_told)
        time.sleep(OUTAGE / 3)
        assert outages.everything(fleet, "node-b") == before

        for proxy in (known, new):
            proxy.switch(Fault.PASS)
        outages.reported(fleet, "node-a", 2)
        outages.reported(fleet, "node-b", 1)


def test_a_token_that_ends_is_replaced_without_a_restart(fleet: Fleet, tmp_path: Path) -> None:
    furnish(fleet, "node-a")
    tell(fleet, "node-a")
    token = tmp_path / "token"
    token.write_text(fleet.token("node-a") + "\n")
    with outages.proxies(fleet, 1) as (proxy,):
        agent = outages.start_behind(proxy, fleet, "node-a")
        agent.stop()
        outages.use_token_file(agent, token)
        agent.start()
        outages.reported(fleet, "node-a", 1)
        await_ready(agent)

        outages.replace_pod(fleet, "node-a")
        eventually(lambda: "401" in agent.ask("/readyz")[1], "the token has ended")
        proxy.switch(Fault.PASS)  # an open watch goes on until it is cut, whatever became of the token
        meanwhile = ripen(fleet, "node-a", "meanwhile", 0)
        eventually(lambda: "waiting for the API server: the API server answers 401" in agent.said, "so does the watch")
        time.sleep(3)
        assert meanwhile.exists()

        token.write_text(fleet.token("node-a") + "\n")
        outages.all_gone([meanwhile])
        outages.reported(fleet, "node-a", 2)
        await_ready(agent)
        assert is_alive(agent)


def test_an_agent_that_may_not_read_its_object_removes_nothing_and_says_so(fleet: Fleet) -> None:
    _, unused = furnish(fleet, "node-a")
    tell(fleet, "node-a")
    agent = fleet.start_agent("node-a")
    outages.all_gone([unused])
    await_ready(agent)

    fleet.cluster.kubectl("delete", "clusterrolebinding", "basekeeper-agent")
    try:
        eventually(lambda: "403" in agent.ask("/readyz")[1], "it says that it is refused")
        meanwhile = ripen(fleet, "node-a", "meanwhile", 0)
        passes = agent.said.count(" pass ")
        eventually(lambda: agent.said.count(" pass ") > passes + 1, "it goes on looking")
        assert meanwhile.exists()
        assert is_alive(agent)
    finally:
        fleet.cluster.kubectl("apply", "--server-side", "-f", str(DEPLOY / "rbac" / "agent.yaml"))
    outages.all_gone([meanwhile])
    await_ready(agent)


def test_an_agent_that_is_stopped_ends_between_two_files_and_the_next_one_carries_on(fleet: Fleet) -> None:
    _, unused = furnish(fleet, "node-a")
    tree = fleet.tree("node-a")
    bases = {unused, *(tree.add_base(f"many-{number}", size=4096, age=3 * DAY, seed=4) for number in range(600))}
    tell(fleet, "node-a", interval="24h", limits={"maxFiles": 1_000_000, "maxPercent": 100})
    agent = fleet.start_agent("node-a")
    eventually(lambda: len(outages.quarantined(fleet, "node-a")) > 20, "it is at work")
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 25
    left = [path.name for path in bases if path.exists()]
    assert left
    assert sorted([*outages.quarantined(fleet, "node-a"), *left]) == sorted(path.name for path in bases)

    agent.start()
    outages.all_gone(bases)
    outages.reported(fleet, "node-a", len(bases))
    assert set(outages.await_removals(agent, len(bases)).values()) == {1}


def test_stopping_does_not_wait_for_an_api_server_that_is_away(fleet: Fleet) -> None:
    faults = {"node-a": Fault.UNAVAILABLE, "node-b": Fault.HANG, "node-c": Fault.FREEZE}
    with outages.proxies(fleet, len(faults)) as made:
        behind = dict(zip(faults, made, strict=True))
        for node in faults:
            furnish(fleet, node)
            tell(fleet, node)
        agents = {node: outages.start_behind(behind[node], fleet, node) for node in faults}
        for node, fault in faults.items():
            outages.reported(fleet, node, 1)
            behind[node].switch(fault)
        time.sleep(3)
        for agent in agents.values():
            began = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - began < 15


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.FREEZE])
def test_a_stopping_controller_ends_soon_while_the_api_server_hangs(fleet: Fleet, fault: Fault) -> None:
    for node in ("node-a", "node-b"):
        fleet.add_node(node)
    with outages.proxies(fleet, 1) as (proxy,):
        controller = fleet.start_controller(server=proxy.url, ca=proxy.ca_file)
        fleet.apply("compute", mode="Audit")
        eventually(lambda: len(fleet.caches()) == 2, "the nodes are told")
        await_ready(controller)
        fleet.apply("compute", mode="Audit", interval="7m")
        proxy.switch(fault)  # most likely in the middle of what follows from that
        time.sleep(2)
        began = time.monotonic()
        assert controller.stop() == 0
        assert time.monotonic() - began < 8


def test_a_second_signal_ends_at_once(fleet: Fleet) -> None:
    furnish(fleet, "node-a")
    tell(fleet, "node-a")
    with outages.proxies(fleet, 1) as (proxy,):
        proxy.switch(Fault.HANG)
        agent = outages.start_behind(proxy, fleet, "node-a")
        eventually(lambda: is_alive(agent), "it runs")
        assert agent.process is not None
        time.sleep(2)
        agent.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in agent.said, "it is told")
        began = time.monotonic()
        assert agent.stop() == -signal.SIGTERM
        assert time.monotonic() - began < 1
