"""What programs that run say of themselves to Prometheus: what the page on metrics has, and no more."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from lab.control_plane import ControlPlane
from lab.nova_tree import MIB
from lab.prometheus import promtool
from tests.cluster.fleet import Fleet, Program, eventually
from tests.cluster.outages import await_ready, furnish
from tests.unit.test_docs import section

FREE = re.compile(r"[0-9a-z.+]+|GET|PATCH|POST|DELETE")
"""Values of the labels that the page gives no list for."""


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def scraped(program: Program) -> dict[str, Metric]:
    """What Prometheus gets, by the names that people ask for."""
    status, text = program.ask("/metrics")
    assert status == 200
    families = text_string_to_metric_families(text)
    return {f"{item.name}_total" if item.type == "counter" else item.name: item for item in families}


def value(program: Program, name: str, **labels: str) -> float:
    """One series."""
    found = [sample for sample in scraped(program)[f"basekeeper_{name}"].samples if sample.labels == labels]
    assert len(found) == 1, f"{name}{labels} is not there"
    return found[0].value


def check_against_the_page(heading: str, found: Mapping[str, Metric]) -> None:
    """Every metric with its type, and with every value of its labels."""
    table = section("metrics.md", heading)
    ours = {name: metric for name, metric in found.items() if not name.startswith("process_")}
    assert set(ours) == set(table)
    for name, metric in ours.items():
        kind, _, labels, meaning = table[name]
        assert (metric.type, metric.documentation) == (kind, meaning)
        documented = {label: set(filter(None, values.split(", "))) for label, values in
                      re.findall(r"`(\w+)`(?:: ([^;]+))?", labels)}  # fmt: skip
        there: dict[str, set[str]] = {}
        for sample in metric.samples:
            for label, one in sample.labels.items():
                if label != "le":
                    there.setdefault(label, set()).add(one)
        assert set(there) == set(documented), name
        for label, values in documented.items():
            assert there[label] == values or (not values and all(map(FREE.fullmatch, there[label]))), (name, label)


def test_agent_and_controller_expose_what_the_page_says_and_count_what_happens(fleet: Fleet) -> None:
    used, unused = furnish(fleet, "node-a")
    another = fleet.tree("node-a").add_swap(1)
    agent, controller = fleet.start_agent("node-a"), fleet.start_controller()
    await_ready(agent)
    assert value(agent, "interval_seconds") == value(agent, "enforcing") == 0

    fleet.apply("compute", mode="Enforce")
    eventually(lambda: not unused.exists(), "the unused base goes")
    eventually(lambda: value(agent, "passes_total", outcome="Acted") == 1, "the pass is counted")
    assert (value(agent, "interval_seconds"), value(agent, "enforcing")) == (60, 1)
    assert value(agent, "policy_generation_applied") == 1
    assert value(agent, "removed_files_total", kind="Original") == value(agent, "quarantine_files") == 1
    removed = value(agent, "removed_bytes_total", kind="Original")
    assert removed == value(agent, "target_bytes") == value(agent, "quarantine_bytes") == MIB
    assert value(agent, "purged_files_total", kind="Original") == 0
    assert value(agent, "cache_files", state="kept") == 2
    assert value(agent, "files", verdict="Keep", reason="InUseByOverlay") == 1
    assert used.stat().st_blocks * 512 == value(agent, "cache_bytes", state="kept")
    assert value(agent, "filesystem_size_bytes") > value(agent, "filesystem_available_bytes") > 0
    assert value(agent, "last_success_timestamp_seconds") == value(agent, "last_pass_timestamp_seconds") > 1.7e9

    another.unlink()
    fleet.run_now("node-a", "please")
    eventually(lambda: value(agent, "vanished_files_total") == 1, "the loss is counted")
    assert re.search(r"warning vanished count=1 files=swap_1 ", agent.said)

    eventually(lambda: value(controller, "nodes", state="Current") == 1, "the controller hears of it")
    assert (value(controller, "policies"), value(controller, "rollout_waiting_nodes")) == (1, 0)
    for heading, program in (("Agent", agent), ("Controller", controller)):
        check_against_the_page(heading, scraped(program))
        checked = promtool("check", "metrics", given=program.ask("/metrics")[1])
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        assert scraped(program)["process_resident_memory_bytes"].samples[0].value > MIB

    fleet.delete("/apis/basekeeper.io/v1alpha1/imagecachepolicies/compute")
    eventually(lambda: value(agent, "interval_seconds") == 0, "the node has no policy")
    assert value(agent, "cache_files", state="kept") == 1, "what was last seen stays"
    assert value(agent, "policy_generation_applied") == 0
