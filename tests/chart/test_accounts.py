"""Who may do what in a cluster, asked with the tokens of the very accounts that the chart has rendered."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.cluster import Cluster
from tests.chart.helm import ROOT, objects
from tests.cluster.asking import APPLY, MERGE, Answer, ask
from tests.cluster.fleet import CACHES, POLICIES, eventually, started

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
Object = dict[str, Any]

NAMES = {
    "as it is": ("basekeeper", (), "basekeeper-agent", "basekeeper-controller"),
    "another release": ("images", (), "images-basekeeper-agent", "images-basekeeper-controller"),
    "renamed": (
        "basekeeper",
        ("--set", "agent.serviceAccount.name=nodes,controller.serviceAccount.name=centre,fullnameOverride=bk"),
        "nodes",
        "centre",
    ),
}


class Accounts:
    """The accounts of a release, two nodes, and what the API server says to each."""

    def __init__(self, cluster: Cluster, release: str, agent: str, controller: str) -> None:
        self.plane, self.namespace, self.controller = cluster.plane, cluster.namespace, controller
        self.cluster, self.release = cluster, release
        self.ours, self.theirs = "node-a", "node-b"
        self.agent = agent
        for node in (self.ours, self.theirs):
            self.plane.add_node(node)
            self.bind(f"agent-{node}", node, agent)
            cache = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": node}}
            self.plane.api("POST", CACHES, {**cache, "spec": {}})

    def bind(self, pod: str, node: str, account: str) -> None:
        """Make a pod on a node under an account."""
        self.plane.add_pod(pod, self.namespace, node=node, service_account=account)

    def apply(self, node: str, token: str, part: str = "status") -> Answer:
        """Write a node's status, or its spec, by server-side apply and as a dry run."""
        sub = "/status" if part == "status" else ""
        body = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": node}, part: {}}
        path = f"{CACHES}/{node}{sub}?fieldManager=test&force=true&dryRun=All"
        return ask(self.plane, "PATCH", path, body, token=token, content_type=APPLY)

    def token(self, account: str, pod: str | None = None) -> str:
        """A token of an account."""
        return self.plane.token(account, self.namespace, pod)

    def give_everything_to(self, account: str) -> None:
        """Bind an account to cluster-admin, as a mistake might."""
        self.plane.api("POST", BINDINGS, {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "mistake"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}],
        })  # fmt: skip

    def check(self, pod: Object, token: str) -> tuple[int, str]:
        """Run what a pod of `helm test` runs, with a token of its account and without waiting."""
        (container,) = pod["spec"]["containers"]
        words = [word for word in container["args"] if not word.startswith("--within")]
        config = self.plane.kubeconfig(token, f"check-{words[1]}")
        done = subprocess.run(
            [sys.executable, "-m", "basekeeper", *words],
            env={"KUBECONFIG": str(config), "PYTHONPATH": str(ROOT / "operator"), "NODE_NAME": self.ours,
                 "POD_NAMESPACE": self.namespace, "PATH": os.environ["PATH"]},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module", params=NAMES)
def accounts(request: pytest.FixtureRequest) -> Iterator[Accounts]:
    """A release with two nodes; every test of a set of names shares it, for all they do is dry runs."""
    release, words, agent, controller = NAMES[request.param]
    with started() as plane:
        cluster = Cluster(plane, "helm4", "elsewhere")
        cluster.install(*words, release=release)
        made = Accounts(cluster, release, agent, controller)
        token = made.token(agent, f"agent-{made.ours}")
        # A policy is in force a moment after it is stored.
        eventually(lambda: not made.apply(made.theirs, token).ok, "the admission policy is in force")
        yield made


def test_an_agent_writes_its_own_nodes_status_and_no_other(accounts: Accounts) -> None:
    token = accounts.token(accounts.agent, f"agent-{accounts.ours}")
    assert accounts.apply(accounts.ours, token).ok
    refused = accounts.apply(accounts.theirs, token)
    assert f"a token of node {accounts.ours} may not write the NodeImageCache {accounts.theirs}" in refused.message
    assert accounts.apply(accounts.ours, token, "spec").status == http.client.FORBIDDEN
    assert "names no node" in accounts.apply(accounts.ours, accounts.token(accounts.agent)).message


def test_no_account_of_the_namespace_escapes_by_its_name_or_its_rights(accounts: Accounts) -> None:
    accounts.bind("stranger", accounts.ours, "stranger")
    accounts.give_everything_to("stranger")
    token = accounts.token("stranger", "stranger")
    assert accounts.apply(accounts.ours, token).ok
    assert "may not write the NodeImageCache" in accounts.apply(accounts.theirs, token).message
    assert "nothing else of it" in accounts.apply(accounts.ours, token, "spec").message


def test_the_controller_keeps_nodes_objects_and_writes_no_status_of_theirs(accounts: Accounts) -> None:
    token = accounts.token(accounts.controller)
    assert accounts.apply(accounts.theirs, token, "spec").ok
    assert accounts.apply(accounts.theirs, token).status == http.client.FORBIDDEN
    pods = f"/api/v1/namespaces/{accounts.namespace}/pods"
    assert ask(accounts.plane, "GET", pods, token=token).ok
    assert ask(accounts.plane, "GET", "/api/v1/nodes", token=token).ok
    for path in (f"/api/v1/namespaces/{accounts.namespace}/secrets", "/api/v1/pods", "/api/v1/secrets"):
        assert ask(accounts.plane, "GET", path, token=token).status == http.client.FORBIDDEN, path


def test_agents_write_events_about_nodes_and_read_nothing_but_nodes_objects(accounts: Accounts) -> None:
    token = accounts.token(accounts.agent, f"agent-{accounts.ours}")
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "chart-"}, "reason": "Test",
             "involvedObject": {"kind": "Node", "name": accounts.ours}, "type": "Normal", "message": "m"}  # fmt: skip
    assert ask(accounts.plane, "POST", "/api/v1/namespaces/default/events", event, token=token).ok
    assert ask(accounts.plane, "GET", CACHES, token=token).ok
    for path in (POLICIES, "/api/v1/nodes", f"/api/v1/namespaces/{accounts.namespace}/pods", "/api/v1/secrets"):
        assert ask(accounts.plane, "GET", path, token=token).status == http.client.FORBIDDEN, path


def test_what_helm_test_runs_has_the_rights_for_it_and_finds_what_is_so(accounts: Accounts) -> None:
    """Without kubelets, what the pods would run is run beside the API server, under the accounts that they have."""
    done = accounts.cluster.helm("get", "hooks", accounts.release, "--namespace", accounts.namespace)
    hooks = list(objects(done.stdout))
    rights = [item for item in hooks if item["kind"] != "Pod"]
    accounts.plane.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, rights)))
    agents, isolation = sorted(
        (item for item in hooks if item["kind"] == "Pod"), key=lambda pod: str(pod["metadata"]["name"])
    )
    (selector,) = [word for word in agents["spec"]["containers"][0]["args"] if word.startswith("--agent-selector=")]
    labels = dict(pair.split("=") for pair in selector.partition("=")[2].split(","))
    path = f"/api/v1/namespaces/{accounts.namespace}/pods/agent-{accounts.ours}"
    accounts.plane.api("PATCH", path, {"metadata": {"labels": labels}}, content_type=MERGE)

    token = accounts.token(agents["spec"]["serviceAccountName"])
    status, said = eventually(lambda: _asked(accounts.check(agents, token)), "the rights are in force")
    assert status == 1
    assert f"WRONG  {accounts.ours}: its agent has not reported since it was started" in said
    assert accounts.theirs not in said, "only pods with the agents' labels count"

    status, said = accounts.check(isolation, accounts.token(accounts.agent, f"agent-{accounts.ours}"))
    assert status == 0, said
    assert f"a token of node {accounts.ours} may not write the NodeImageCache {accounts.theirs}" in said


def _asked(told: tuple[int, str]) -> tuple[int, str] | None:
    return None if "forbidden" in told[1] else told
