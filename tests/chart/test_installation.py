"""The life of a release, by Helm 3 and Helm 4: what it brings, what upgrades change, what stays and is taken over."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from tests.chart.cluster import CRDS, DEFINITIONS, Cluster
from tests.chart.helm import CHART, DEPLOY, ROOT
from tests.cluster.fleet import CACHES, eventually


@pytest.fixture
def cluster(empty_cluster: ControlPlane, version: str) -> Cluster:
    """A cluster without basekeeper."""
    return Cluster(empty_cluster, version)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The chart of a later release, with another definition of policies."""
    chart = tmp_path / "basekeeper"
    shutil.copytree(CHART, chart)
    file = chart / "files/crds/basekeeper.io_imagecachepolicies.yaml"
    told = file.read_text(encoding="utf-8")
    file.write_text(told.replace("What an operator wants done with", "NEWER, what is wanted of"), encoding="utf-8")
    return chart


def test_an_install_brings_the_definitions_the_admission_and_the_first_policy(cluster: Cluster) -> None:
    said = cluster.install("--set", "policy.create=true")

    assert cluster.policy()["spec"]["mode"] == "Audit"
    for name in CRDS:
        assert cluster.plane.api("GET", f"{DEFINITIONS}/{name}")["metadata"]["annotations"]["helm.sh/resource-policy"]
    assert f"kubectl label namespace {cluster.namespace} pod-security.kubernetes.io/enforce=privileged" in said
    assert f"kubectl -n {cluster.namespace} rollout status daemonset/basekeeper-agent" in said
    assert "kubectl wait --for=condition=Ready --timeout=5m icp/compute" in said
    assert "kubectl get icp,nic" in said


def test_the_notes_show_how_to_make_a_policy_and_what_they_show_works(cluster: Cluster) -> None:
    said = cluster.install()
    (line,) = [line.strip() for line in said.splitlines() if line.strip().startswith("printf")]
    shell, _, _ = line.partition(" | ")
    manifest = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    cluster.plane.kubectl("apply", "-f", "-", stdin=manifest)
    assert cluster.policy()["spec"]["mode"] == "Audit"


def test_a_policy_that_somebody_has_changed_is_not_changed_back_by_an_upgrade(cluster: Cluster) -> None:
    cluster.install("--set", "policy.create=true")
    cluster.plane.kubectl("patch", "icp", "compute", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    before = cluster.policy()

    cluster.upgrade("--set", "policy.create=true", "--set", "policy.spec.mode=Enforce")

    assert cluster.policy()["metadata"]["uid"] == before["metadata"]["uid"]
    assert cluster.policy()["spec"] == before["spec"]


def test_a_policy_that_is_asked_for_later_comes_with_the_upgrade(cluster: Cluster) -> None:
    cluster.install()
    cluster.upgrade("--set", "policy.create=true", "--set", "policy.name=later")
    assert cluster.policy("later")["spec"]["mode"] == "Audit"


def test_an_upgrade_brings_new_definitions(cluster: Cluster, newer: Path) -> None:
    cluster.install()
    cluster.upgrade(chart=newer)
    eventually(lambda: cluster.described().startswith("NEWER"), "the definition is the newer one")


def test_helm_4_upgrades_what_helm_3_has_installed(empty_cluster: ControlPlane, newer: Path) -> None:
    Cluster(empty_cluster, "helm3").install("--set", "policy.create=true")
    cluster = Cluster(empty_cluster, "helm4")
    before = cluster.policy()

    cluster.upgrade("--set", "policy.create=true", chart=newer)

    eventually(lambda: cluster.described().startswith("NEWER"), "the definition is the newer one")
    assert cluster.policy() == before


def test_the_runbooks_way_to_stop_all_agents_has_a_way_back(cluster: Cluster) -> None:
    page = (ROOT / "docs/runbooks/BasekeeperControllerAbsent.md").read_text(encoding="utf-8")
    stop, start = [shlex.split(line)[6:] for line in page.splitlines() if line.startswith("helm upgrade")]

    def wanted() -> dict[str, str]:
        path = f"/apis/apps/v1/namespaces/{cluster.namespace}/daemonsets/basekeeper-agent"
        found: dict[str, str] = cluster.plane.api("GET", path)["spec"]["template"]["spec"]["nodeSelector"]
        return found

    cluster.install()
    before = wanted()
    cluster.upgrade(*stop)
    assert wanted() == {**before, "stopped": "true"}
    cluster.upgrade(*start)
    assert wanted() == before


def test_an_uninstall_leaves_what_people_made_and_a_second_install_carries_on(cluster: Cluster, newer: Path) -> None:
    cluster.install("--set", "policy.create=true")
    cache = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": "node-a"}}
    cluster.plane.api("POST", CACHES, {**cache, "spec": {}})
    before = cluster.policy()

    cluster.uninstall()

    assert cluster.policy()["metadata"]["uid"] == before["metadata"]["uid"]
    assert cluster.plane.api("GET", f"{CACHES}/node-a")

    cluster.install("--set", "policy.create=true", chart=newer)

    assert cluster.policy()["metadata"]["uid"] == before["metadata"]["uid"]
    assert cluster.plane.api("GET", f"{CACHES}/node-a")
    eventually(lambda: cluster.described().startswith("NEWER"), "the definition is the newer one")


def test_definitions_that_shall_not_stay_go_with_the_release(cluster: Cluster) -> None:
    cluster.install("--set", "crds.keep=false")
    cluster.uninstall()

    def are_gone() -> bool:
        found = cluster.plane.api("GET", DEFINITIONS)["items"]
        return not {item["metadata"]["name"] for item in found} & set(CRDS)

    eventually(are_gone, "the definitions are gone")


def test_another_name_takes_kept_definitions_over_when_it_is_told_to(cluster: Cluster, newer: Path) -> None:
    cluster.install()
    cluster.uninstall()
    refused = cluster.try_install(release="other")
    assert refused.returncode != 0
    assert "invalid ownership metadata" in refused.stderr

    cluster.install("--take-ownership", release="other", chart=newer)

    eventually(lambda: cluster.described().startswith("NEWER"), "the definition is the newer one")


def test_a_second_release_is_refused_while_there_is_one(cluster: Cluster) -> None:
    cluster.install()
    refused = cluster.try_install("--set", "crds.install=false", release="other")
    assert refused.returncode != 0
    assert 'ValidatingAdmissionPolicy "imagecachepolicies.basekeeper.io"' in refused.stderr or (
        'ValidatingAdmissionPolicy "nodeimagecaches.basekeeper.io"' in refused.stderr
    )
    assert "exists and cannot be imported" in refused.stderr


def test_definitions_that_others_apply_are_left_to_them(cluster: Cluster) -> None:
    cluster.plane.kubectl("apply", "--server-side", "-f", str(DEPLOY / "crds"))
    for name in CRDS:
        cluster.plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}")

    cluster.install("--set", "crds.install=false,policy.create=true")

    assert cluster.policy()["spec"]["mode"] == "Audit"
    assert "annotations" not in cluster.plane.api("GET", f"{DEFINITIONS}/{CRDS[0]}")["metadata"]


def test_people_with_the_clusters_roles_read_and_write_policies(cluster: Cluster) -> None:
    """The aggregation itself is the controller manager's work; the labels that it goes by are what the chart makes."""
    cluster.install()
    found = cluster.plane.kubectl("get", "clusterrole", "-l", "rbac.authorization.k8s.io/aggregate-to-edit=true",
                                  "-o", "json").stdout  # fmt: skip
    rules = [rule for item in json.loads(found)["items"] for rule in item["rules"] or ()]
    ours = [rule for rule in rules if "basekeeper.io" in rule["apiGroups"]]
    verbs = {verb for rule in ours if "imagecachepolicies" in rule["resources"] for verb in rule["verbs"]}
    assert {"get", "list", "watch", "create", "update", "patch", "delete"} <= verbs
