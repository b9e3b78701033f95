"""The laboratory's control plane does what tests rely on."""

import http.client
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lab.audit_log import Request
from lab.compute_node import LabError, has_ended
from lab.control_plane import ApiError, ControlPlane
from lab.proxy import Fault, FaultyProxy

PATIENCE = 30.0
CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"


@pytest.fixture
def node(control_plane: ControlPlane) -> str:
    name = f"node-{secrets.token_hex(4)}"
    control_plane.add_node(name, {"zone": "a"})
    return name


@pytest.fixture
def agent(control_plane: ControlPlane, namespace: str, node: str) -> str:
    """The token of a pod that runs on the node, for an account that may read config maps."""
    control_plane.add_pod("agent", namespace, node=node, service_account="agent")
    control_plane.kubectl("create", "role", "reader", "-n", namespace, "--verb=get,list,watch", "--resource=configmaps")
    subject = f"--serviceaccount={namespace}:agent"
    control_plane.kubectl("create", "rolebinding", "reader", "-n", namespace, "--role=reader", subject)
    return control_plane.token("agent", namespace, pod="agent")


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[FaultyProxy]:
    with control_plane.proxy() as proxy:
        yield proxy


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


def config_map(name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


@contextmanager
def get(url: str, path: str, token: str, ca: Path, timeout: float = PATIENCE) -> Iterator[http.client.HTTPResponse]:
    address = urlsplit(url)
    assert address.hostname is not None
    trust = ssl.create_default_context(cafile=str(ca))
    connection = http.client.HTTPSConnection(address.hostname, address.port, context=trust, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


# --- the cluster ---------------------------------------------------------------------------------------------------


def test_kubectl_speaks_to_a_server_of_the_chosen_version(control_plane: ControlPlane) -> None:
    version = json.loads(control_plane.kubectl("version", "-o", "json").stdout)

    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"]
    chosen = os.environ.get("BASEKEEPER_TEST_KUBERNETES") or "current"
    module = Path(__file__).parents[2] / "lab/controlplane" / chosen / "go.mod"
    assert version["serverVersion"]["gitVersion"] in module.read_text().split()


def test_a_refusal_of_kubectl_carries_its_complaint(control_plane: ControlPlane) -> None:
    with pytest.raises(LabError, match='namespaces "no-such" not found'):
        control_plane.kubectl("get", "namespace", "no-such")


def test_an_unknown_version_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(LabError, match=r"known are: 1\.34"):
        ControlPlane(version="0.1")


def test_a_node_says_what_it_was_told(control_plane: ControlPlane, node: str) -> None:
    ready = (
        "get",
        "node",
        node,
        "-o",
        'jsonpath={.status.conditions[?(@.type=="Ready")].status},{.spec.taints[*].key}',
    )
    assert control_plane.kubectl(*ready).stdout == "True,"

    control_plane.set_node_ready(node, False)
    assert control_plane.kubectl(*ready).stdout == "False,node.kubernetes.io/not-ready"

    control_plane.set_node_ready(node, None)
    assert control_plane.kubectl(*ready).stdout == "Unknown,node.kubernetes.io/not-ready"


def test_a_pod_runs_where_it_was_put_and_goes_at_once(control_plane: ControlPlane, namespace: str, node: str) -> None:
    pod = control_plane.add_pod("agent", namespace, node=node, labels={"app": "agent"})

    assert (pod["spec"]["nodeName"], pod["status"]["phase"]) == (node, "Running")
    assert control_plane.kubectl("get", "pod", "-n", namespace, "-l", "app=agent", "-o", "name").stdout == "pod/agent\n"
    control_plane.kubectl("delete", "pod", "agent", "-n", namespace, "--wait=false")
    with pytest.raises(ApiError):
        control_plane.api("GET", f"/api/v1/namespaces/{namespace}/pods/agent")


def test_a_bound_token_names_its_node(control_plane: ControlPlane, namespace: str, node: str, agent: str) -> None:
    config = control_plane.kubeconfig(agent, "agent")
    unbound = control_plane.kubeconfig(control_plane.token("agent", namespace), "unbound")

    def who(kubeconfig: Path) -> dict[str, object]:
        answer = json.loads(control_plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig).stdout)
        user: dict[str, object] = answer["status"]["userInfo"]
        return user

    bound_to = who(config)["extra"]
    assert isinstance(bound_to, dict)
    assert bound_to["authentication.kubernetes.io/node-name"] == [node]
    assert who(config)["username"] == f"system:serviceaccount:{namespace}:agent"
    assert "authentication.kubernetes.io/node-name" not in str(who(unbound))


def test_an_object_goes_with_its_owner(fragile_control_plane: ControlPlane, namespace: str) -> None:
    cluster, path = fragile_control_plane, CONFIG_MAPS.format(namespace)
    owner = cluster.api("POST", path, config_map("owner"))["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    cluster.api("POST", path, config_map("owned", ownerReferences=[reference]))
    cluster.start_controller_manager()

    cluster.api("DELETE", f"{path}/owner")

    wait_until(
        lambda: not cluster.api("GET", f"{path}?fieldSelector=metadata.name=owned")["items"],
        f"the owned object goes; {cluster.log('kube-controller-manager')}",
    )


# --- the audit log -------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_who_asked_for_what(
    control_plane: ControlPlane, namespace: str, node: str, agent: str
) -> None:
    path, user = CONFIG_MAPS.format(namespace), f"system:serviceaccount:{namespace}:agent"
    since = control_plane.moment()

    for _ in range(3):
        with get(control_plane.url, path, agent, control_plane.ca_file) as answer:
            assert answer.status == http.client.OK
    with get(control_plane.url, f"/api/v1/nodes/{node}/status", agent, control_plane.ca_file) as answer:
        assert answer.status == http.client.FORBIDDEN
    control_plane.api("GET", path)

    expected = {Request(user, "list", "configmaps", ""): 3, Request(user, "get", "nodes", "status"): 1}
    assert control_plane.requests(since, user=user) == expected
    assert control_plane.requests(since, node=node) == expected
    assert control_plane.requests(since)[Request("admin", "list", "configmaps", "")] == 1
    assert not control_plane.requests(control_plane.moment())


def test_a_watch_counts_once_and_from_its_start(control_plane: ControlPlane, namespace: str, agent: str) -> None:
    path, since = f"{CONFIG_MAPS.format(namespace)}?watch=1", control_plane.moment()

    with get(control_plane.url, path, agent, control_plane.ca_file):
        running = control_plane.requests(since)
    wait_until(lambda: len(control_plane.audit(since)) == 2, "the watch ends")

    user = f"system:serviceaccount:{namespace}:agent"
    assert running == control_plane.requests(since) == {Request(user, "watch", "configmaps", ""): 1}


# --- what can fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [ControlPlane.kill_api_server, ControlPlane.stop_api_server], ids=["killed", "stopped"])
def test_objects_outlive_the_api_server(
    fragile_control_plane: ControlPlane, namespace: str, end: Callable[[ControlPlane], None]
) -> None:
    cluster, path = fragile_control_plane, CONFIG_MAPS.format(namespace)
    cluster.api("POST", path, config_map("survivor"))
    url, process = cluster.url, cluster.pid("kube-apiserver")

    end(cluster)
    assert has_ended(process)
    with pytest.raises(ConnectionRefusedError):
        cluster.api("GET", path)
    cluster.start_api_server()

    assert cluster.url == url
    assert [item["metadata"]["name"] for item in cluster.api("GET", path)["items"]] == ["survivor"]


def test_objects_outlive_etcd(fragile_control_plane: ControlPlane, namespace: str) -> None:
    cluster, path = fragile_control_plane, CONFIG_MAPS.format(namespace)
    cluster.api("POST", path, config_map("survivor"))

    cluster.stop_etcd()
    cluster.start_etcd()
    cluster.heal()

    assert cluster.api("GET", f"{path}/survivor")["metadata"]["name"] == "survivor"


def test_a_proxy_answers_503_in_the_servers_place(
    control_plane: ControlPlane, proxy: FaultyProxy, namespace: str, agent: str
) -> None:
    config = control_plane.kubeconfig(agent, "by-proxy", server=proxy.url, ca=proxy.ca_file)
    ask = ("get", "configmaps", "-n", namespace)
    assert control_plane.kubectl(*ask, kubeconfig=config).returncode == 0

    proxy.switch(Fault.UNAVAILABLE)
    with pytest.raises(LabError, match="ServiceUnavailable"):
        control_plane.kubectl(*ask, kubeconfig=config)

    proxy.switch(Fault.PASS)
    assert control_plane.kubectl(*ask, kubeconfig=config).returncode == 0


def test_a_proxy_refuses_and_hangs(control_plane: ControlPlane, proxy: FaultyProxy, agent: str) -> None:
    proxy.switch(Fault.REFUSE)
    with pytest.raises(ConnectionRefusedError), get(proxy.url, "/version", agent, proxy.ca_file):
        pass

    proxy.switch(Fault.HANG)
    with pytest.raises(TimeoutError), get(proxy.url, "/version", agent, proxy.ca_file, timeout=0.3):
        pass

    proxy.switch(Fault.PASS)
    with get(proxy.url, "/version", agent, proxy.ca_file) as answer:
        assert answer.status == http.client.OK


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.REFUSE, Fault.HANG])
def test_a_proxy_that_fails_cuts_watches(
    control_plane: ControlPlane, proxy: FaultyProxy, namespace: str, agent: str, fault: Fault
) -> None:
    path = CONFIG_MAPS.format(namespace)
    with get(proxy.url, f"{path}?watch=1", agent, proxy.ca_file) as watch:
        control_plane.api("POST", path, config_map("seen"))
        assert json.loads(watch.readline())["object"]["metadata"]["name"] == "seen"

        proxy.switch(fault)

        assert proxy.connections == 0
        with suppress(OSError, http.client.IncompleteRead):
            assert not watch.readline()


def test_a_frozen_watch_falls_silent_and_stays_open(
    control_plane: ControlPlane, proxy: FaultyProxy, namespace: str, agent: str
) -> None:
    path = CONFIG_MAPS.format(namespace)
    with get(proxy.url, f"{path}?watch=1", agent, proxy.ca_file, timeout=0.5) as watch:
        control_plane.api("POST", path, config_map("seen"))
        assert json.loads(watch.readline())["object"]["metadata"]["name"] == "seen"

        proxy.switch(Fault.FREEZE)
        control_plane.api("POST", path, config_map("unseen"))

        with pytest.raises(TimeoutError):
            watch.readline()
        assert proxy.connections == 1


# --- its end -------------------------------------------------------------------------------------------------------


def test_everything_ends_with_the_context() -> None:
    with ControlPlane() as cluster:
        processes = [cluster.pid(program) for program in ("etcd", "kube-apiserver")]
        assert not any(has_ended(process) for process in processes)

    assert all(has_ended(process) for process in processes)
    assert not cluster.root.exists()


def test_everything_ends_with_a_test_that_is_killed() -> None:
    script = (
        "from lab.control_plane import ControlPlane\n"
        "with ControlPlane() as cluster:\n"
        "    print(cluster.root, cluster.pid('etcd'), cluster.pid('kube-apiserver'), flush=True)\n"
        "    input()\n"
    )
    top = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=top, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as test:
        assert test.stdout is not None
        root, *processes = test.stdout.readline().split()
        assert not any(has_ended(int(process)) for process in processes)
        test.send_signal(signal.SIGKILL)

    wait_until(lambda: all(has_ended(int(process)) for process in processes), "the daemons end")
    wait_until(lambda: not Path(root).exists(), "the directory goes")
