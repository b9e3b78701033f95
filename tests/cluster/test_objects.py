"""How large the objects become on the server, and what stands in them that nobody wrote into a field."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY, NovaTree
from tests.cluster.asking import APPLY, ask
from tests.cluster.fleet import CACHES, NAMESPACE, POLICIES, Fleet, eventually, is_condition
from tests.cluster.stubs import Stubs

NODE = "compute-r12-u07.rack12.az1.region-one.example.com"
MOST_OF_A_NODE = 8192
MOST_OF_A_POLICY = 1024 * 1024
"""Bytes; etcd takes one and a half times as much."""
ROLLED_UP = 120.0


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


def _bytes(found: Any) -> int:
    return len(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode())


def _managers(found: dict[str, Any]) -> list[tuple[str, str]]:
    fields = found["metadata"]["managedFields"]
    return sorted((item["manager"], item.get("subresource", "")) for item in fields)


def _furnish(tree: NovaTree) -> None:
    """Fifty files, and disks that cannot be read under names as long as nova's."""
    for number in range(15):
        base = tree.add_base(f"used-{number}", age=3 * DAY, seed=number + 1)
        tree.add_overlay(f"0f3c0000-0000-4000-8000-{number:012}", base)
    for number in range(25):
        tree.add_base(f"unused-{number}", age=3 * DAY, seed=number + 100)
    for number in range(5):
        tree.add_base(f"partial-{number}", suffix=".part", age=3 * DAY, seed=number + 200)
    for number in range(5):
        tree.add_file(f"left-here-by-somebody-{number}.qcow2.old", age=3 * DAY)
    for number in range(30):
        disk = tree.instance(f"0f3c0000-0000-4000-9000-{number:012}_resize") / "disk"
        tree.declare(disk.parent.name, "disk", "qcow2")
        disk.write_bytes(b"QFI\xfb\0\0\0\x09" + bytes(100))


def test_a_busy_nodes_object_stays_under_eight_kibibytes(fleet: Fleet) -> None:
    tree = fleet.tree(NODE)
    pins = [f"0f2c3a1e-6d51-4a0b-9f0e-{number:012}" for number in range(10)]
    known = [{"path": f"0f3c0000-0000-4000-a000-{number:012}_del/disk", "reason": "known"} for number in range(5)]
    fleet.add_node(NODE)
    tree.add_base("first", age=3 * DAY)
    fleet.start_controller()
    fleet.apply("compute", mode="Enforce")
    fleet.start_agent(NODE)
    eventually(lambda: fleet.cache(NODE)["status"]["cache"]["quarantinedFiles"] == 1, "it removes what it may")

    _furnish(tree)
    fleet.apply("compute", mode="Enforce", pinnedImages=pins, acknowledged=known)
    found = eventually(lambda: _with_all_files(fleet), "the whole cache is told")
    _tell("a busy node's object", found)
    assert _bytes(found) < MOST_OF_A_NODE
    assert is_condition(found, "Holding", "True", "UnknownUsage")
    assert min(len(found["status"]["holds"]), len(found["status"]["files"])) > 2
    assert found["status"]["filesTruncated"]
    _is_clean(found)
    assert _managers(found) == [("basekeeper-agent", "status"), ("basekeeper-controller", "")]

    (tree.base_dir / ".basekeeper" / "id").unlink()  # as if this were another directory than last time
    fleet.run_now(NODE, "please")
    eventually(lambda: is_condition(fleet.cache(NODE), "BreakerClosed", "False"), "an anomaly is told")
    found = fleet.cache(NODE)
    _tell("with an anomaly, and an annotation of a person", found)
    assert _bytes(found) < MOST_OF_A_NODE


def _tell(what: str, found: dict[str, Any]) -> None:
    status, managed = found["status"], _bytes(found["metadata"]["managedFields"])
    sys.stdout.write(
        f"\n{what}: {_bytes(found)} bytes, {managed} of them managedFields, {_bytes(found['spec'])} of them spec; "
        f"{len(status['files'])} files and {len(status['holds'])} holds told\n"
    )


def _with_all_files(fleet: Fleet) -> dict[str, Any] | None:
    found = fleet.cache(NODE)
    last = found["spec"]["pinnedImages"] and found["status"]["observedGeneration"] == found["metadata"]["generation"]
    return found if last and found["status"]["cache"]["files"] >= 45 else None  # partial files go


def test_a_policys_status_has_500_rows_at_most_and_stays_small(fleet: Fleet) -> None:
    size = 505
    fleet.apply("compute", mode="Audit")
    with Stubs(fleet, [f"compute-{number:03}.az1.example.com" for number in range(size)]) as stubs:
        fleet.start_controller()
        for node in stubs.nodes[:50]:
            stubs.open_breaker(node, "most of the bases in use in the last pass have no user now " * 4)
        found = eventually(lambda: _rolled_up(fleet, size), "all nodes are rolled up", ROLLED_UP)

        status = found["status"]
        managed = _bytes(found["metadata"]["managedFields"])
        whole = f"{_bytes(found)} bytes, {managed} of them managedFields, {len(status['nodeStatuses'])} rows"
        sys.stdout.write(f"\na policy with {size} nodes: {whole}\n")
        assert (status["truncated"], len(status["nodeStatuses"])) == (True, 500)
        assert {row["state"] for row in status["nodeStatuses"][:50]} == {"BreakerOpen"}
        assert _bytes(found) < MOST_OF_A_POLICY / 4
        assert _managers(found) == [("basekeeper-controller", "status"), ("test", "")]
        _is_clean(found)
        caches = fleet.caches().values()
        for cache in caches:
            _is_clean(cache)
            assert _managers(cache) == [("basekeeper-agent", "status"), ("basekeeper-controller", "")]
        for path in ("/api/v1/nodes", f"/api/v1/namespaces/{NAMESPACE}/pods"):
            for item in fleet.cluster.api("GET", path)["items"]:
                _is_clean(item)


def _rolled_up(fleet: Fleet, size: int) -> dict[str, Any] | None:
    found = fleet.policy("compute")
    nodes = found["status"]["nodes"]
    return found if (nodes["matched"], nodes["current"], nodes["failing"]) == (size, size, 50) else None


def _is_clean(found: dict[str, Any]) -> None:
    """Nothing of ours that would outlive or block anything."""
    metadata = found["metadata"]
    assert not metadata.get("finalizers")
    assert not [name for name in metadata.get("annotations", {}) if "basekeeper" in name or "kopf" in name]


def test_the_longest_rows_that_the_schema_takes_fit(installed: ControlPlane) -> None:
    policy = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "ImageCachePolicy", "metadata": {"name": "long"}}
    assert ask(installed, "POST", POLICIES, {**policy, "spec": {"mode": "Audit"}}).ok
    rows = [
        {
            "node": f"{number:03}".rjust(253, "n"),
            "state": "BreakerOpen",
            "mode": "Enforce",
            "outcome": "Held",
            "lastPassTime": "2026-12-31T00:00:00Z",
            **dict.fromkeys(("cacheBytes", "reclaimableBytes", "quarantinedBytes", "reclaimedBytes"), 2**60),
            "heldFiles": 2**31 - 1,
            "message": "ä" * 256,  # the server counts bytes
        }
        for number in range(500)
    ]
    path = f"{POLICIES}/long/status?fieldManager=basekeeper-controller&force=true"
    status = {"conditions": [], "nodeStatuses": rows}
    answer = ask(installed, "PATCH", path, {**policy, "status": status}, content_type=APPLY)
    ask(installed, "DELETE", f"{POLICIES}/long")

    assert answer.ok, answer.message
    sys.stdout.write(f"\nthe largest rows: {_bytes(answer.body)} bytes\n")
    assert _bytes(answer.body) < MOST_OF_A_POLICY
    assert _bytes(answer.body["metadata"]["managedFields"]) < 2048


def test_a_node_that_is_told_nothing_is_small(fleet: Fleet) -> None:
    fleet.add_node(NODE)
    fleet.start_controller()
    found = eventually(
        lambda: ask(fleet.cluster, "GET", f"{CACHES}/{NODE}").body["metadata"] and fleet.cache(NODE), "made"
    )
    assert found["spec"] == {}
    assert _bytes(found) < 1024
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], "blockOwnerDeletion" in owner) == ("Node", NODE, False)
