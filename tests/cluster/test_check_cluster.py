"""`basekeeper check-cluster`: what `helm test` runs, against a real API server and agents that really report."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from tests.cluster.asking import Object
from tests.cluster.fleet import CACHES, NAMESPACE, ROOT, Fleet, eventually

OURS, THEIRS = "node-a", "node-b"
ADMISSION = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/nodeimagecaches.basekeeper.io"


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    """Two nodes with their objects; nothing runs."""
    with Fleet(installed, tmp_path) as made:
        for node in (OURS, THEIRS):
            made.add_node(node)
            cache: Object = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache",
                             "metadata": {"name": node}, "spec": {}}  # fmt: skip
            made.cluster.api("POST", CACHES, cache)
        yield made


def check(fleet: Fleet, *words: str, token: str | None = None) -> tuple[int, str, str]:
    """The command's status, output and complaint, as the administrator or with a token."""
    config = fleet.cluster.admin if token is None else fleet.cluster.kubeconfig(token, "check")
    environment = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "NODE_NAME")}
    command = [sys.executable, "-m", "basekeeper", "check-cluster", *words, "--kubeconfig", str(config)]
    done = subprocess.run(
        command,
        env={**environment, "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_agents_that_report_pass_and_say_what_they_see(fleet: Fleet) -> None:
    fleet.apply("compute", mode="Audit")
    fleet.start_controller()
    for node in (OURS, THEIRS):
        fleet.tree(node).add_base("image")
        fleet.start_agent(node)

    status, said, complaint = check(fleet, "agents", "--namespace", NAMESPACE, "--within", "60s")

    assert (status, complaint) == (0, "")
    assert [line.split("  ", 1)[0] for line in said.splitlines()] == ["ok", "ok"]
    assert f"{THEIRS}: libvirt was not asked, {fleet.tree(THEIRS).instances_path}/_base was read: files 1" in said


def test_an_agent_that_never_reported_fails_the_check_by_its_nodes_name(fleet: Fleet) -> None:
    status, said, complaint = check(fleet, "agents", "--namespace", NAMESPACE)
    assert status == 1
    assert f"WRONG  {OURS}: its agent has not reported since it was started" in said
    assert "2 of 2 checks failed" in complaint


def test_without_a_policy_the_check_says_that_nothing_is_looked_at(fleet: Fleet) -> None:
    fleet.start_agent(OURS)
    eventually(lambda: fleet.cache(OURS)["status"]["heartbeatTime"], "the agent reports")

    status, said, _ = check(fleet, "agents", "--namespace", NAMESPACE)

    assert status == 1
    assert f"WRONG  {OURS}: no policy selects the node" in said


def test_a_libvirt_that_does_not_answer_fails_the_check_with_its_reason(fleet: Fleet, tmp_path: Path) -> None:
    fleet.apply("compute", mode="Audit")
    fleet.start_controller()
    fleet.tree(OURS)
    fleet.start_agent(OURS, "--libvirt", f"qemu+unix:///system?socket={tmp_path}/none")

    def unreachable() -> bool:
        conditions = {item["type"]: item["status"] for item in fleet.cache(OURS)["status"]["conditions"]}
        return bool(conditions["LibvirtReachable"] == "False")

    eventually(unreachable, "the agent says that libvirt does not answer")

    status, said, _ = check(fleet, "agents", "--namespace", NAMESPACE)

    assert status == 1
    assert f"WRONG  {OURS}: libvirt at qemu+unix:///system?socket={tmp_path}/none could not be asked" in said


def test_a_report_older_than_the_agents_pod_does_not_count(fleet: Fleet) -> None:
    """An upgrade that breaks the agents must not pass by what their predecessors said."""
    fleet.apply("compute", mode="Audit")
    fleet.start_controller()
    fleet.tree(OURS)
    fleet.start_agent(OURS)
    eventually(lambda: fleet.cache(OURS)["status"]["lastPass"], "the agent reports a pass")
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/agent-{OURS}/status"
    container: Object = {"name": "main", "image": "none", "imageID": "", "ready": True, "restartCount": 0,
                         "state": {"running": {"startedAt": "2999-01-01T00:00:00Z"}}}  # fmt: skip
    fleet.cluster.api("PATCH", path, {"status": {"containerStatuses": [container]}},
                      content_type="application/merge-patch+json")  # fmt: skip

    _, said, _ = check(fleet, "agents", "--namespace", NAMESPACE)

    assert f"WRONG  {OURS}: its agent has not reported since it was started" in said


def test_a_namespace_without_agents_fails_the_check(fleet: Fleet) -> None:
    status, said, _ = check(fleet, "agents", "--namespace", "default")
    assert (status, said) == (1, "WRONG  no node has an agent's pod in the namespace default\n")


def test_an_agents_token_is_shown_to_write_its_own_node_only_and_nothing_is_written(fleet: Fleet) -> None:
    status, said, _ = isolation(fleet, fleet.token(OURS))
    assert status == 0
    assert f"ok  {OURS}: may write its own status" in said
    assert f"a token of node {OURS} may not write the NodeImageCache {THEIRS}" in said
    assert "status" not in fleet.cache(OURS)


def test_without_the_admission_policy_the_check_fails_and_names_it(fleet: Fleet) -> None:
    binding = fleet.cluster.api("GET", ADMISSION)
    fleet.cluster.api("DELETE", ADMISSION)
    token = fleet.token(OURS)
    try:
        status, said = eventually(
            lambda: _failed(check(fleet, "isolation", "--node-name", OURS, token=token)), "it fails"
        )
    finally:
        binding["metadata"] = {key: binding["metadata"][key] for key in ("name", "labels")}
        fleet.cluster.api("POST", ADMISSION.rpartition("/")[0], binding)
    assert status == 1
    assert "the admission policy nodeimagecaches.basekeeper.io is not in force" in said
    eventually(lambda: isolation(fleet, token)[0] == 0, "the check passes again")


def isolation(fleet: Fleet, token: str) -> tuple[int, str, str]:
    return check(fleet, "isolation", "--node-name", OURS, token=token)


def _failed(told: tuple[int, str, str]) -> tuple[int, str] | None:
    return told[:2] if told[0] else None


def test_a_token_that_is_bound_to_no_pod_fails_the_check(fleet: Fleet) -> None:
    unbound = fleet.cluster.token("basekeeper-agent", NAMESPACE)
    status, said, _ = isolation(fleet, unbound)
    assert status == 1
    assert "the token names no node" in said


def test_the_check_of_a_token_wants_to_know_the_node(fleet: Fleet) -> None:
    status, _, complaint = check(fleet, "isolation")
    assert status == 2
    assert "--node-name" in complaint
