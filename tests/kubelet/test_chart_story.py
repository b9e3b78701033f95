"""The chart on a real cluster with two kubelets, from install to uninstall: one story, a test for each step."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cluster_story import NAMESPACE, OPENSTACK_HELM, ClusterStory
from lab.compute_node import LabError
from lab.libvirt_files import NOVA
from lab.real_cluster import RealCluster

NODES = ("node-a", "node-b")
NO_CAPABILITY = "0000000000000000"


@pytest.fixture(scope="module")
def story() -> Iterator[ClusterStory]:
    """The story at the step that the last test has left it at: a step that fails fails those that build on it."""
    try:
        with RealCluster(*NODES) as cluster:
            cluster.build_and_load()
            told = ClusterStory(cluster)
            told.furnish()
            told.install()
            yield told
            sys.stderr.write(told.diagnosis())  # pytest shows it where a test failed
    except LabError as error:
        pytest.fail(f"no chart can be installed here: {error}", pytrace=False)


def facts(process: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_pods_run_as_the_chart_says_in_the_eyes_of_the_kernel(story: ClusterStory) -> None:
    for pod in story.pods("agent") + story.pods("controller"):
        processes = story.cluster.processes(pod)
        assert processes
        for process in processes:
            status = facts(process)
            assert status["Uid"].split() == status["Gid"].split() == [str(NOVA)] * 4
            assert {status[f"Cap{kind}"] for kind in ("Eff", "Prm", "Bnd", "Inh", "Amb")} == {NO_CAPABILITY}
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
            assert [mount[5].split(",")[0] for mount in mounts if mount[4] == "/"] == ["ro"]
            node = story.cluster.machines[pod["spec"]["nodeName"]].kube.first_inside
            for namespace in ("net", "pid", "ipc", "uts", "mnt"):
                outer, own = (os.readlink(f"/proc/{where}/ns/{namespace}") for where in (node, process))
                assert outer != own, namespace


def test_libvirt_answers_though_polkit_guards_the_read_only_socket(story: ClusterStory) -> None:
    (pod, *_) = story.pods("agent")
    code = "import libvirt; libvirt.openReadOnly('qemu+unix:///system?socket=/run/libvirt/libvirt-sock-ro')"
    refused = story.cluster.control.kubectl(
        *("exec", "--namespace", NAMESPACE, pod["metadata"]["name"], "--"),
        *("/opt/basekeeper/bin/python3", "-c", code),
        check=False,
    )
    assert refused.returncode != 0
    assert "system bus" in refused.stderr  # where polkit would be asked

    story.apply(mode="Audit")

    for name in NODES:
        conditions = {item["type"]: item["status"] for item in story.cache(name)["status"]["conditions"]}
        assert conditions["LibvirtReachable"] == "True"


def test_a_policy_is_followed_on_every_node(story: ClusterStory) -> None:
    story.cluster.control.kubectl("wait", "--for=condition=Ready", "--timeout=10s", "icp/compute")
    for name in NODES:
        cache = story.cache(name)["status"]["cache"]
        assert (cache["files"], cache["reclaimableFiles"]) == (3, 1)
    assert all(name in story.show("icp", "nic") for name in ("compute", *NODES))


def test_helm_test_passes(story: ClusterStory) -> None:
    said = story.test()

    for name in NODES:
        assert f"ok  {name}: libvirt answers" in said
    assert "may not write" in said


def test_what_cannot_be_read_is_a_hold_that_says_what_to_change(story: ClusterStory) -> None:
    disk, hold = story.hold("node-a")

    assert disk.parent.name in str(hold)
    assert f"owner 0:0, mode 0600; basekeeper is {NOVA}:{NOVA}" in hold["message"]
    assert hold["message"].endswith("let it be read, repair or remove it, or acknowledge it")

    story.release("node-a", disk)


def test_what_nothing_needs_goes_and_is_counted(story: ClusterStory) -> None:
    story.apply(mode="Enforce")
    story.wait_for_quarantine(len(NODES))

    for name in NODES:
        (unused,) = story.furniture[name].unused
        assert not unused.exists()
        (file,) = story.quarantined(name)
        assert file.name == unused.name
        assert file.stat().st_uid == NOVA
        assert story.metrics(name)['basekeeper_removed_files_total{kind="Original"}'] == 1
    assert story.check_needed() == 2 * len(NODES)


def test_an_upgrade_replaces_agents_node_by_node(story: ClusterStory) -> None:
    pods, fewest = story.upgrade("agent.logFormat=json")

    assert {pod.node for pod in pods} == set(NODES)
    assert fewest >= len(NODES) - 1
    assert pods[1].created >= pods[0].ready


def test_a_changed_definition_comes_with_an_upgrade(story: ClusterStory) -> None:
    assert "PRIORITY" not in story.show("icp")

    assert "PRIORITY" in story.upgrade_definition()


def test_an_uninstall_leaves_policies_and_quarantines(story: ClusterStory) -> None:
    before = {name: story.quarantined(name) for name in NODES}

    story.uninstall()

    assert story.policy()["spec"]["mode"] == "Enforce"
    assert {name: story.quarantined(name) for name in NODES} == before


def test_a_second_install_carries_on_by_helm_3_and_with_openstack_helms_values(story: ClusterStory) -> None:
    since = story.add_unused("node-a", "2013")

    story.install(OPENSTACK_HELM, helm="helm3")
    story.wait_for_quarantine(len(NODES) + 1)

    assert not since.exists()
    assert story.check_needed() == 2 * len(NODES)


def test_draining_empties_every_quarantine_before_an_uninstall(story: ClusterStory) -> None:
    story.apply(quarantine={"drain": "Restore"})
    story.wait_for_quarantine(0)

    story.uninstall()

    for name in NODES:
        assert not story.quarantined(name)
        assert all(unused.exists() for unused in story.furniture[name].unused)
    assert story.check_needed() == 2 * len(NODES)
