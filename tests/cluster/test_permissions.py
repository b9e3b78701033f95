"""Who may write what: roles and the admission policy, asked with everybody's tokens on a real API server."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.control_plane import ControlPlane
from lab.nova_tree import DAY
from tests.cluster.asking import APPLY, MERGE, Answer, Object, ask
from tests.cluster.fleet import CACHES, DEPLOY, NAMESPACE, POLICIES, Fleet, eventually, is_condition

OURS, THEIRS = "node-a", "node-b"
STATUS = {"reclaimable": "1 B"}
ONLY_THE_STATUS = "an agent may write the status of its own NodeImageCache, nothing else of it"
NOT_YOURS = f"a token of node {OURS} may not write the NodeImageCache {THEIRS}"
NO_NODE = "the token names no node; an agent's token must be bound to its pod"
RENAMED = "basekeeper-agent-by-another-name"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
Attempt = tuple[str, str, Object | None, str]
"""Method, path, body, and what the server says to it."""
ADMISSION = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/nodeimagecaches.basekeeper.io"


def _cache(name: str, **content: Any) -> dict[str, Any]:
    return {
        "apiVersion": "basekeeper.io/v1alpha1",
        "kind": "NodeImageCache",
        "metadata": {"name": name},
        **content,
    }


def _policy(**content: Any) -> dict[str, Any]:
    return {
        "apiVersion": "basekeeper.io/v1alpha1",
        "kind": "ImageCachePolicy",
        "metadata": {"name": "compute"},
        **content,
    }


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    """Two nodes with their objects, and a policy; nothing runs."""
    with Fleet(installed, tmp_path) as made:
        for node in (OURS, THEIRS):
            made.add_node(node)
            made.cluster.api("POST", CACHES, _cache(node, spec={}))
        made.apply("compute", mode="Audit")
        yield made


def _apply_status(fleet: Fleet, node: str, token: str) -> Answer:
    """As an agent does it."""
    path = f"{CACHES}/{node}/status?fieldManager=basekeeper-agent&force=true"
    return ask(fleet.cluster, "PATCH", path, _cache(node, status=STATUS), token=token, content_type=APPLY)


def _refused(answer: Answer, sentence: str) -> None:
    assert answer.status in {http.client.FORBIDDEN, http.client.UNPROCESSABLE_ENTITY}, answer
    assert sentence in answer.message


# --- an agent ------------------------------------------------------------------------------------------------------


def test_an_agent_writes_its_own_nodes_status(fleet: Fleet) -> None:
    assert _apply_status(fleet, OURS, fleet.token(OURS)).ok
    assert fleet.cache(OURS)["status"] == STATUS


@pytest.mark.parametrize("content_type", [APPLY, MERGE])
def test_an_agent_does_not_write_another_nodes_status(fleet: Fleet, content_type: str) -> None:
    path = f"{CACHES}/{THEIRS}/status?fieldManager=basekeeper-agent"
    content = _cache(THEIRS, status=STATUS)
    answer = ask(fleet.cluster, "PATCH", path, content, token=fleet.token(OURS), content_type=content_type)

    _refused(answer, NOT_YOURS)
    assert "status" not in fleet.cache(THEIRS)


def test_an_agent_has_no_other_verb(fleet: Fleet) -> None:
    token = fleet.token(OURS)
    policies, pods = f"{POLICIES}/compute", f"/api/v1/namespaces/{NAMESPACE}/pods"
    spec: Object = {"spec": {"mode": "Enforce"}}
    status: Object = {"status": {}}
    attempts: list[Attempt] = [
        ("PATCH", f"{CACHES}/{OURS}", spec, 'cannot patch resource "nodeimagecaches"'),
        ("PATCH", f"{CACHES}/{THEIRS}", spec, 'cannot patch resource "nodeimagecaches"'),
        ("PUT", f"{CACHES}/{OURS}", fleet.cache(OURS), 'cannot update resource "nodeimagecaches"'),
        ("PUT", f"{CACHES}/{OURS}/status", fleet.cache(OURS), 'cannot update resource "nodeimagecaches/status"'),
        ("POST", CACHES, _cache("node-c", spec={}), 'cannot create resource "nodeimagecaches"'),
        ("DELETE", f"{CACHES}/{OURS}", None, 'cannot delete resource "nodeimagecaches"'),
        ("DELETE", CACHES, None, 'cannot deletecollection resource "nodeimagecaches"'),
        ("GET", policies, None, 'cannot get resource "imagecachepolicies"'),
        ("GET", POLICIES, None, 'cannot list resource "imagecachepolicies"'),
        ("PATCH", policies, spec, 'cannot patch resource "imagecachepolicies"'),
        ("PATCH", f"{policies}/status", status, 'cannot patch resource "imagecachepolicies/status"'),
        ("POST", POLICIES, _policy(spec={"mode": "Enforce"}), 'cannot create resource "imagecachepolicies"'),
        ("DELETE", policies, None, 'cannot delete resource "imagecachepolicies"'),
        ("GET", f"/api/v1/nodes/{OURS}", None, 'cannot get resource "nodes"'),
        ("GET", "/api/v1/nodes", None, 'cannot list resource "nodes"'),
        ("PATCH", f"/api/v1/nodes/{OURS}", {"metadata": {"labels": {"a": "b"}}}, 'cannot patch resource "nodes"'),
        ("GET", pods, None, 'cannot list resource "pods"'),
        ("DELETE", f"{pods}/agent-{THEIRS}", None, 'cannot delete resource "pods"'),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets", None, 'cannot list resource "secrets"'),
        ("GET", "/api/v1/secrets", None, 'cannot list resource "secrets"'),
        ("GET", "/api/v1/namespaces/default/events", None, 'cannot list resource "events"'),
        ("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/basekeeper-controller/token", {},
         'cannot create resource "serviceaccounts/token"'),
    ]  # fmt: skip
    for method, path, body, sentence in attempts:
        answer = ask(fleet.cluster, method, path, body, token=token, content_type=_type(method))
        assert answer.status == http.client.FORBIDDEN, (method, path, answer)
        assert sentence in answer.message, (method, path)
        assert f"system:serviceaccount:{NAMESPACE}:basekeeper-agent" in answer.message
    assert fleet.cache(OURS)["metadata"]["generation"] == 1
    assert fleet.policy("compute")["metadata"]["generation"] == 1


def _type(method: str) -> str:
    return MERGE if method == "PATCH" else "application/json"


def test_a_token_that_is_bound_to_no_pod_writes_no_status(fleet: Fleet) -> None:
    unbound = fleet.cluster.token("basekeeper-agent", NAMESPACE)
    for node in (OURS, THEIRS):
        _refused(_apply_status(fleet, node, unbound), NO_NODE)
        assert "status" not in fleet.cache(node)


# --- others who were given more than they should have -------------------------------------------------------------


@pytest.fixture
def granted(fleet: Fleet) -> Iterator[Fleet]:
    """A renamed account that was given the agent's role, and by mistake everything else about our kinds."""
    everything = {"apiGroups": ["basekeeper.io"], "resources": ["*"], "verbs": ["*"]}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": RENAMED}}
    fleet.cluster.api("POST", ROLES, {**role, "rules": [everything]})
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": RENAMED},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": RENAMED},
        "subjects": [
            {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE} for name in (RENAMED, "basekeeper-agent")
        ],
    }
    fleet.cluster.api("POST", BINDINGS, binding)
    fleet.cluster.add_pod("renamed", NAMESPACE, node=OURS, service_account=RENAMED)
    token = fleet.cluster.token(RENAMED, NAMESPACE, pod="renamed")
    eventually(lambda: ask(fleet.cluster, "GET", POLICIES, token=token).ok, "the role counts")
    yield fleet
    for path in (f"{BINDINGS}/{RENAMED}", f"{ROLES}/{RENAMED}"):
        fleet.delete(path)


@pytest.mark.parametrize("account", [RENAMED, "basekeeper-agent"])
def test_whatever_its_role_an_account_of_the_namespace_is_confined_to_its_nodes_status(
    granted: Fleet, account: str
) -> None:
    cluster = granted.cluster
    pod = "renamed" if account == RENAMED else f"agent-{OURS}"
    bound, unbound = cluster.token(account, NAMESPACE, pod=pod), cluster.token(account, NAMESPACE)

    assert _apply_status(granted, OURS, bound).ok
    _refused(_apply_status(granted, THEIRS, bound), NOT_YOURS)
    _refused(_apply_status(granted, OURS, unbound), NO_NODE)
    whole = granted.cache(THEIRS) | {"status": STATUS}
    _refused(ask(cluster, "PUT", f"{CACHES}/{THEIRS}/status", whole, token=bound), NOT_YOURS)
    for token in (bound, unbound):
        for name in (OURS, THEIRS):
            spec = {"spec": {"mode": "Enforce"}}
            path = f"{CACHES}/{name}"
            _refused(ask(cluster, "PATCH", path, spec, token=token, content_type=MERGE), ONLY_THE_STATUS)
            _refused(ask(cluster, "PUT", path, granted.cache(name), token=token), ONLY_THE_STATUS)
            _refused(ask(cluster, "DELETE", path, token=token), ONLY_THE_STATUS)
        _refused(ask(cluster, "DELETE", CACHES, token=token), ONLY_THE_STATUS)
        _refused(ask(cluster, "POST", CACHES, _cache("node-c", spec={}), token=token), ONLY_THE_STATUS)
        applied = ask(cluster, "PATCH", f"{CACHES}/node-c?fieldManager=x", _cache("node-c", spec={}), token=token,
                      content_type=APPLY)  # fmt: skip
        _refused(applied, ONLY_THE_STATUS)
    assert sorted(granted.caches()) == [OURS, THEIRS]
    assert all(item["spec"] == {} for item in granted.caches().values())


def test_others_are_no_business_of_the_admission_policy(fleet: Fleet) -> None:
    """A person asks for a pass, and the cluster's own garbage collector removes what has no owner left."""
    fleet.run_now(OURS, "please")
    assert fleet.cache(OURS)["metadata"]["annotations"] == {"basekeeper.io/run-now": "please"}
    fleet.delete(f"{CACHES}/{OURS}")


def test_the_admission_policy_fails_closed(granted: Fleet) -> None:
    """Where it cannot be evaluated the request is refused, not let through."""
    cluster = granted.cluster
    there = ask(cluster, "GET", ADMISSION).body
    assert there["spec"]["failurePolicy"] == "Fail"
    # Asked for a name in a list that is not there, an expression ends in an error: so would one of a later release.
    broken = {"expression": "object.spec.nothing[0] == 'x'", "message": "never said"}
    cluster.api("PATCH", ADMISSION, {"spec": {"validations": [broken]}}, content_type=MERGE)
    try:
        token = granted.token(OURS)
        answer = eventually(
            lambda: "never said" not in (said := _apply_status(granted, OURS, token)).message and not said.ok and said,
            "the change counts",
        )
        assert "no such key: nothing" in answer.message
    finally:
        cluster.api("PATCH", ADMISSION, {"spec": {"validations": there["spec"]["validations"]}}, content_type=MERGE)
        eventually(lambda: _apply_status(granted, OURS, granted.token(OURS)).ok, "the policy is back")


# --- the controller ------------------------------------------------------------------------------------------------


def test_the_controller_writes_what_is_its_own_and_nothing_else(fleet: Fleet) -> None:
    cluster = fleet.cluster
    token = cluster.token("basekeeper-controller", NAMESPACE)
    manager = "fieldManager=basekeeper-controller&force=true"

    told = _cache(OURS, spec={"mode": "Audit"})
    assert ask(cluster, "PATCH", f"{CACHES}/{OURS}?{manager}", told, token=token, content_type=APPLY).ok
    made = _cache("node-c", spec={})
    assert ask(cluster, "PATCH", f"{CACHES}/node-c?{manager}", made, token=token, content_type=APPLY).ok
    assert ask(cluster, "DELETE", f"{CACHES}/node-c", token=token).ok
    said = _policy(status={"reclaimable": "1 B"})
    assert ask(cluster, "PATCH", f"{POLICIES}/compute/status?{manager}", said, token=token, content_type=APPLY).ok

    attempts: list[Attempt] = [
        ("PATCH", f"{POLICIES}/compute", {"spec": {"mode": "Enforce"}}, 'cannot patch resource "imagecachepolicies"'),
        ("PUT", f"{POLICIES}/compute", fleet.policy("compute"), 'cannot update resource "imagecachepolicies"'),
        ("DELETE", f"{POLICIES}/compute", None, 'cannot delete resource "imagecachepolicies"'),
        ("POST", POLICIES, _policy(spec={"mode": "Enforce"}), 'cannot create resource "imagecachepolicies"'),
        ("PATCH", f"{CACHES}/{OURS}/status", {"status": STATUS}, 'cannot patch resource "nodeimagecaches/status"'),
        ("PATCH", f"/api/v1/nodes/{OURS}", {"metadata": {"labels": {"a": "b"}}}, 'cannot patch resource "nodes"'),
        ("PATCH", f"/api/v1/nodes/{OURS}/status", {"status": {}}, 'cannot patch resource "nodes/status"'),
        ("DELETE", f"/api/v1/nodes/{OURS}", None, 'cannot delete resource "nodes"'),
        ("GET", "/api/v1/pods", None, 'cannot list resource "pods"'),
        ("GET", "/api/v1/namespaces/default/pods", None, 'cannot list resource "pods"'),
        ("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/agent-{OURS}", None, 'cannot delete resource "pods"'),
        ("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets", None, 'cannot list resource "secrets"'),
        ("POST", "/api/v1/namespaces/default/events", {}, 'cannot create resource "events"'),
    ]
    for method, path, body, sentence in attempts:
        answer = ask(cluster, method, path, body, token=token, content_type=_type(method))
        assert answer.status == http.client.FORBIDDEN, (method, path, answer)
        assert sentence in answer.message, (method, path)


# --- the roles as they are -----------------------------------------------------------------------------------------

Grant = tuple[str, str, str]
"""Namespace (empty: everywhere), resource and verb."""


def _granted(part: str) -> set[Grant]:
    """What the manifests of deploy/rbac give to an account."""
    found = set()
    for document in yaml.safe_load_all((DEPLOY / "rbac" / f"{part}.yaml").read_text(encoding="utf-8")):
        for rule in document.get("rules", ()):
            namespace = document["metadata"].get("namespace", "")
            assert "*" not in {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}
            found |= {(namespace, resource, verb) for resource in rule["resources"] for verb in rule["verbs"]}
    return found


def _rules(fleet: Fleet, account: str, namespace: str) -> set[tuple[str, str]]:
    """What the server says that an account may do in a namespace, beside what everybody may."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    token = fleet.cluster.token(account, NAMESPACE)
    answer = ask(fleet.cluster, "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review, token=token)
    return {
        (resource, verb)
        for rule in answer.body["status"]["resourceRules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if not resource.startswith(("selfsubject", "clustertrustbundles"))
    }


@pytest.mark.parametrize("part", ["agent", "controller"])
def test_the_server_lets_each_account_do_what_its_role_says_and_no_more(fleet: Fleet, part: str) -> None:
    for namespace in (NAMESPACE, "default", "kube-system"):
        wanted = {(resource, verb) for where, resource, verb in _granted(part) if where in {"", namespace}}
        assert _rules(fleet, f"basekeeper-{part}", namespace) == wanted


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_people_get_ours_with_the_clusters_own_roles(fleet: Fleet, role: str) -> None:
    """The controller manager puts aggregated roles together; here it is enough that it would choose ours."""
    chosen = {
        item["metadata"]["name"]
        for item in ask(fleet.cluster, "GET", ROLES).body["items"]
        if item["metadata"].get("labels", {}).get(f"rbac.authorization.k8s.io/aggregate-to-{role}") == "true"
        and item["metadata"]["name"].startswith("basekeeper")
    }
    assert chosen == ({"basekeeper-view"} if role == "view" else {"basekeeper-view", "basekeeper-edit"})


def test_every_verb_that_is_granted_is_used(installed: ControlPlane, tmp_path: Path) -> None:
    """From the audit log of a run with a node that comes, is enforced, loses its agent's object and goes."""
    with Fleet(installed, tmp_path) as fleet:
        since = installed.moment()
        fleet.tree(OURS).add_base("unused", age=3 * DAY)
        fleet.add_node(OURS)
        fleet.apply("compute", mode="Enforce")
        fleet.start_controller()
        fleet.start_agent(OURS)
        eventually(lambda: fleet.events(OURS), "something was removed and told")
        eventually(lambda: is_condition(fleet.policy("compute"), "Enforcing", "True"), "rolled up", 90)
        fleet.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/agent-{OURS}")
        fleet.delete(f"/api/v1/nodes/{OURS}")
        eventually(lambda: fleet.caches() == {}, "the object goes with its node")
        used = {part: _used(installed, since, part) for part in ("agent", "controller")}

    # To apply what is not there yet takes `create` beside `patch`, and is `patch` in the log; see below.
    used["controller"].add(("", "nodeimagecaches", "create"))
    for part in ("agent", "controller"):
        told = json.dumps(sorted(used[part]), indent=1)
        unused = _granted(part) - used[part]
        assert unused == set(), f"{part} has no use for {unused}; it used {told}"
        assert {grant for grant in used[part] if not _is_discovery(grant)} <= _granted(part)


def test_nodes_objects_are_not_made_without_the_verb_for_it(fleet: Fleet) -> None:
    role = ask(fleet.cluster, "GET", f"{ROLES}/basekeeper-controller").body
    rules = [{**rule, "verbs": [verb for verb in rule["verbs"] if verb != "create"]} for rule in role["rules"]]
    token = fleet.cluster.token("basekeeper-controller", NAMESPACE)
    path, content = f"{CACHES}/node-c?fieldManager=x&dryRun=All", _cache("node-c", spec={})
    fleet.cluster.api("PATCH", f"{ROLES}/basekeeper-controller", {"rules": rules}, content_type=MERGE)
    try:
        eventually(
            lambda: "cannot create resource" in ask(fleet.cluster, "PATCH", path, content, token=token,
                                                    content_type=APPLY).message, "it is refused",
        )  # fmt: skip
    finally:
        restored = {"rules": role["rules"]}
        fleet.cluster.api("PATCH", f"{ROLES}/basekeeper-controller", restored, content_type=MERGE)
    eventually(lambda: ask(fleet.cluster, "PATCH", path, content, token=token, content_type=APPLY).ok, "and now not")


def _used(cluster: ControlPlane, since: int, part: str) -> set[Grant]:
    name = f"system:serviceaccount:{NAMESPACE}:basekeeper-{part}"
    found = set()
    for entry in cluster.audit(since):
        target = entry.get("objectRef")
        if entry["user"].get("username") != name or target is None or entry["responseStatus"]["code"] >= 400:
            continue
        resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
        where = target.get("namespace", "") if resource in {"events", "pods"} else ""
        found.add((where, resource, entry["verb"]))
    return found


def _is_discovery(grant: Grant) -> bool:
    return not grant[1]
