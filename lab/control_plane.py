"""A real Kubernetes control plane on loopback: etcd, an API server and, when asked for, a controller manager.

    with ControlPlane() as cluster:
        cluster.add_node("node-a")
        cluster.add_pod("agent-a", "basekeeper", node="node-a", service_account="agent")
        config = cluster.kubeconfig(cluster.token("agent", "basekeeper", pod="agent-a"), "agent-a")

There is no kubelet and no scheduler: nodes and pods are objects that say what the test wants them to say. The
programs are those that scripts/controlplane built. What is left behind, even by a process that was killed, ends
with everything that it started (`daemons`).
"""

import http.client
import json
import os
import secrets
import signal
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import audit_log
from lab.certificates import Authority, make_signing_key
from lab.compute_node import LabError, has_ended
from lab.control_plane_programs import (
    ALL_CONTROLLERS,
    API_SERVER,
    CONTROLLER_MANAGER,
    ETCD,
    FEW_CONTROLLERS,
    SCHEDULER,
    Installation,
    programs,
)
from lab.daemons import Daemons, free_ports
from lab.network import SERVICE_ADDRESS, Network
from lab.opening import Opening
from lab.proxy import FaultyProxy

Object = dict[str, Any]

START_TIMEOUT = 60.0
ANSWER_TIMEOUT = 30.0
COMMAND_TIMEOUT = 60.0
_MOMENT = "/version?moment="
_MERGE = "application/merge-patch+json"
_POD_CONDITIONS = ("Initialized", "Ready", "ContainersReady", "PodScheduled")


class ApiError(LabError):
    """Raised when the API server refuses a request; `status` is the answer's number."""

    def __init__(self, request: str, status: int, answer: str) -> None:
        """Say which request, and what the server answered."""
        super().__init__(f"{request}: {status} {answer}")
        self.status = status


class ControlPlane(Opening):
    """One cluster, ready when the context is entered and gone when it is left."""

    def __init__(
        self,
        *,
        version: str | None = None,
        with_controller_manager: bool = False,
        network: Network | None = None,
        nodes: Sequence[str] = (),
    ) -> None:
        """Describe a cluster; `version` is a directory of lab/controlplane, BASEKEEPER_TEST_KUBERNETES by default.

        With a `network` it is one for kubelets, which `nodes` names: with a scheduler and all controllers, and its
        processes in that network.
        """
        more = ("kubelet", SCHEDULER) if network else ()
        where = programs(version or os.environ.get("BASEKEEPER_TEST_KUBERNETES") or "current", *more)
        self._with_controller_manager = with_controller_manager or network is not None
        self._network = network
        self._nodes = nodes
        self._daemons = Daemons()
        port = network.port if network else free_ports(1)[0]
        self._installation = Installation(where, self._daemons.root, port, *free_ports(2))
        self._admin_token = secrets.token_urlsafe(24)

    # --- life --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._daemons.__enter__()
        self._write_files()
        self.start_etcd()
        self.start_api_server()
        if self._with_controller_manager:
            self.start_controller_manager()
        if self._network:
            self._start(SCHEDULER, self._installation.scheduler(self.kubeconfig_of(SCHEDULER)))

    def close(self) -> None:
        """End every process and remove every file; once more does no harm."""
        self._daemons.close()

    def start_etcd(self) -> None:
        """Start etcd, as after `stop_etcd`: it has what it had."""
        self._start(ETCD, self._installation.etcd())

    def stop_etcd(self) -> None:
        """End etcd as in a power failure: the API server goes on without its store, and answers with errors."""
        # Asked to end in order it would wait for the API server to hang up, which that never does.
        self._daemons.stop(ETCD, signal.SIGKILL)

    def start_api_server(self) -> None:
        """Start the API server, on the same port every time, and wait until it serves."""
        self._start(API_SERVER, self._installation.api_server(*self._certificate))
        self._wait_for(API_SERVER, self._is_serving)

    def stop_api_server(self) -> None:
        """Let the API server end in order: it takes leave of its watchers."""
        self._daemons.stop(API_SERVER)

    def kill_api_server(self) -> None:
        """Let the API server end as in a power failure."""
        self._daemons.stop(API_SERVER, signal.SIGKILL)

    def start_controller_manager(self) -> None:
        """Start what removes objects whose owner has gone, and namespaces; it needs a moment to know every kind."""
        controllers = ALL_CONTROLLERS if self._network else FEW_CONTROLLERS
        config = self.kubeconfig_of(CONTROLLER_MANAGER)
        self._start(CONTROLLER_MANAGER, self._installation.controller_manager(config, self.ca_file, controllers))

    def stop_controller_manager(self) -> None:
        """Stop the controller manager."""
        self._daemons.stop(CONTROLLER_MANAGER)

    def heal(self) -> None:
        """Bring back what a test has stopped, and end what it has added."""
        for program, start in ((ETCD, self.start_etcd), (API_SERVER, self.start_api_server)):
            if not self._daemons.runs(program):
                start()
        if self._daemons.runs(CONTROLLER_MANAGER) and not self._with_controller_manager:
            self.stop_controller_manager()
        self._wait_for(API_SERVER, self._is_serving)

    def pid(self, program: str) -> int:
        """Return the process id of `etcd`, `kube-apiserver` or `kube-controller-manager`."""
        return self._daemons.pid(program)

    def log(self, program: str, lines: int = 20) -> str:
        """Return the end of what a program has said."""
        return self._daemons.log(program, lines)

    # --- how to reach it ---------------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The directory of everything that the cluster writes."""
        return self._daemons.root

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://127.0.0.1:{self._installation.port}"

    @property
    def etcd_url(self) -> str:
        """Where etcd listens, for whoever wants to know how large it is."""
        return f"http://127.0.0.1:{self._installation.etcd_port}"

    @property
    def ca_file(self) -> Path:
        """Who signed the API server's certificate, and a proxy's."""
        return self._authority.file

    @property
    def admin(self) -> Path:
        """The kubeconfig of one who may do everything."""
        return self.root / "admin.kubeconfig"

    def kubeconfig(self, token: str, name: str, *, server: str | None = None, ca: Path | None = None) -> Path:
        """Write the kubeconfig of whoever has a token; `server` and `ca` are a proxy's, perhaps."""
        file = self.root / f"{name}.kubeconfig"
        cluster = {"server": server or self.url, "certificate-authority": str(ca or self.ca_file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": "lab", "user": name}}],
            "current-context": name,
        }
        file.write_text(json.dumps(config))
        file.chmod(0o600)
        return file

    def kubeconfig_of(self, component: str) -> Path:
        """The kubeconfig of the controller manager, the scheduler or a node's kubelet."""
        return self.root / f"{component}.kubeconfig"

    @property
    def programs(self) -> Path:
        """The directory of kubectl and of the cluster's own programs."""
        return self._installation.programs

    def proxy(self) -> FaultyProxy:
        """Make a proxy before the API server that can be told to fail; open it as a context."""
        return FaultyProxy(self._installation.port, self._authority)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator, or by another kubeconfig; a failure is an error unless `check=False`."""
        command = [str(self._installation.programs / "kubectl"), f"--kubeconfig={kubeconfig or self.admin}", *arguments]
        # A home of its own: kubectl keeps what it has learned about a server there.
        environment = {**os.environ, "HOME": str(self.root), "KUBECONFIG": "", "KUBECACHEDIR": str(self.root / "kube")}
        try:
            done = subprocess.run(
                command,
                input=stdin or "",
                env=environment,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"kubectl {' '.join(arguments)}: not done within {COMMAND_TIMEOUT} s") from error
        if check and done.returncode != 0:
            raise LabError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def api(self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json") -> Any:
        """Ask the API server as the administrator, much faster than kubectl does, and return its answer."""
        status, answer = self._send(method, path, body, content_type)
        if status >= http.client.BAD_REQUEST:
            raise ApiError(f"{method} {path}", status, answer)
        return json.loads(answer)

    # --- nodes, pods, tokens -----------------------------------------------------------------------------------

    def add_node(self, name: str, labels: Mapping[str, str] | None = None, *, ready: bool | None = True) -> None:
        """Make a node that says it is ready; no kubelet stands behind it."""
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
        self.api("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        self.set_node_ready(name, ready)

    def set_node_ready(self, name: str, ready: bool | None) -> None:
        """Let a node say that it is ready or not; None is what a cluster says of a node that it lost touch with."""
        status = {True: "True", False: "False", None: "Unknown"}[ready]
        taints = [] if ready else [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
        # The API server taints every new node, and it is the controller manager that would take the taint away.
        self.api("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": taints}}, content_type=_MERGE)
        condition = {"type": "Ready", "status": status, "reason": "Laboratory", "message": "", **_times()}
        self.api("PATCH", f"/api/v1/nodes/{name}/status", {"status": {"conditions": [condition]}}, content_type=_MERGE)

    def add_pod(
        self,
        name: str,
        namespace: str,
        *,
        node: str,
        labels: Mapping[str, str] | None = None,
        service_account: str = "default",
        port: int | None = None,
    ) -> Object:
        """Make a pod that says it runs on a node; the namespace and the service account are made when missing.

        With a `port` it says that its address is loopback, where the process that stands for it serves metrics.
        """
        self._ensure("/api/v1/namespaces", "Namespace", namespace)
        self._ensure(f"/api/v1/namespaces/{namespace}/serviceaccounts", "ServiceAccount", service_account)
        pods = f"/api/v1/namespaces/{namespace}/pods"
        ports = [{"name": "metrics", "containerPort": port}] if port else []
        address = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]} if port else {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": dict(labels or {})},
            "spec": {
                "nodeName": node,
                "serviceAccountName": service_account,
                "terminationGracePeriodSeconds": 0,  # nobody would ever say that its containers have ended
                "containers": [{"name": "main", "image": "none", "ports": ports}],
            },
        }
        self.api("POST", pods, pod)
        conditions = [{"type": kind, "status": "True", **_times(transition_only=True)} for kind in _POD_CONDITIONS]
        status = {"status": {"phase": "Running", "conditions": conditions, **address}}
        answer: Object = self.api("PATCH", f"{pods}/{name}/status", status, content_type=_MERGE)
        return answer

    def token(self, service_account: str, namespace: str, pod: str | None = None) -> str:
        """Ask for a token of a service account, bound to a pod when one is named: it then names the pod's node."""
        spec: Object = {}
        if pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        return str(self.api("POST", path, request)["status"]["token"])

    # --- what was asked of it ----------------------------------------------------------------------------------

    def moment(self) -> int:
        """Say how far the audit log has come: `audit` and `requests` begin there."""
        self._flush_audit_log()
        return self._installation.audit_log.stat().st_size

    def audit(self, since: int = 0) -> list[audit_log.Entry]:
        """Return the audit log's entries: everything that was answered, and watches that began."""
        if self._daemons.runs(API_SERVER):
            self._flush_audit_log()
        return [
            entry
            for entry in audit_log.read(self._installation.audit_log, since)
            if not entry["requestURI"].startswith(_MOMENT)
        ]

    def requests(
        self, since: int = 0, *, user: str | None = None, node: str | None = None
    ) -> Counter[audit_log.Request]:
        """Count what was asked, by user, verb, resource and subresource; `node` is whose pod's token it came with."""
        return audit_log.count(
            entry
            for entry in self.audit(since)
            if user in {None, entry["user"].get("username")} and node in {None, audit_log.node_of(entry)}
        )

    # --- inside ------------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        self._authority = Authority(self.root / "pki")
        self._certificate = self._authority.issue(API_SERVER, *((SERVICE_ADDRESS,) if self._network else ()))
        self._trust = ssl.create_default_context(cafile=str(self.ca_file))
        make_signing_key(self._installation.signing_key)
        self._installation.audit_policy.write_text(json.dumps(audit_log.POLICY))
        self.kubeconfig(self._admin_token, "admin")
        known = [f'{self._admin_token},admin,admin,"system:masters"']
        components = {name: f"system:{name},system:{name}" for name in (CONTROLLER_MANAGER, SCHEDULER)}
        components |= {name: f'system:node:{name},{name},"system:nodes"' for name in self._nodes}
        for name, user in components.items():
            token = secrets.token_urlsafe(24)
            known.append(f"{token},{user}")
            self.kubeconfig(token, name)
        self._installation.tokens.write_text("\n".join(known) + "\n")

    def _start(self, name: str, command: list[str]) -> None:
        self._daemons.start(name, [*(self._network.enter if self._network else ()), *command])

    def _is_serving(self) -> bool:
        status, _ = self._send("GET", "/readyz")
        # It comes a moment after the server calls itself ready.
        return status == http.client.OK and self._send("GET", "/api/v1/namespaces/default")[0] == http.client.OK

    def _wait_for(self, program: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                if condition():
                    return
                complaint = "not ready"
            except OSError as error:
                complaint = str(error)
            if time.monotonic() > deadline or has_ended(self.pid(program)):
                log = self.log(program)
                self._daemons.stop(program, signal.SIGKILL)
                raise LabError(f"{program} does not serve: {complaint}\n{log}")
            time.sleep(0.05)

    def _send(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> tuple[int, str]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._installation.port, context=self._trust, timeout=ANSWER_TIMEOUT
        )
        headers = {"Authorization": f"Bearer {self._admin_token}", "Content-Type": content_type}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def _ensure(self, collection: str, kind: str, name: str) -> None:
        try:
            self.api("POST", collection, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
        except ApiError as error:
            if error.status != http.client.CONFLICT:
                raise

    def _flush_audit_log(self) -> None:
        """Wait until a request of ours is in the log: a request is written down after it is answered."""
        uri = f"{_MOMENT}{secrets.token_hex(8)}"
        end = self._installation.audit_log.stat().st_size
        self.api("GET", uri)
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while uri not in audit_log.text(self._installation.audit_log, end):
            if time.monotonic() > deadline:
                raise LabError(f"{uri} was answered and is not in the audit log")
            time.sleep(0.002)


def _times(*, transition_only: bool = False) -> dict[str, str]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"lastTransitionTime": now} if transition_only else {"lastTransitionTime": now, "lastHeartbeatTime": now}
