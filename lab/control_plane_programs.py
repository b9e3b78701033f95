"""The programs of a control plane: where they are, and with which options the laboratory runs them."""

import functools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.compute_node import LabError

ETCD, API_SERVER, CONTROLLER_MANAGER = "etcd", "kube-apiserver", "kube-controller-manager"
SCHEDULER = "kube-scheduler"

# Those that a namespace's life and ownerReferences need. Not node-lifecycle: without a kubelet every node would be
# declared dead after forty seconds.
FEW_CONTROLLERS = ("garbage-collector-controller", "namespace-controller", "serviceaccount-controller")
ALL_CONTROLLERS = ("*",)


@functools.cache
def programs(version: str, *more: str) -> Path:
    """Find the directory with the programs of a version, and `more` of them; what is not there yet is built."""
    return Path(_ask("controlplane", version, *more))


@functools.cache
def tool(name: str) -> Path:
    """Find the directory with the programs of a tool of lab/tools; they are built when they are not there yet."""
    return Path(_ask("tool", name))


def _ask(script: str, *arguments: str) -> str:
    command = [str(Path(__file__).parent.parent / "scripts" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"scripts/{script} {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.splitlines()[-1]


@dataclass(frozen=True)
class Installation:
    """Programs, ports of loopback, and a directory with the files that `ControlPlane` writes."""

    programs: Path
    root: Path
    port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def signing_key(self) -> Path:
        """What signs the tokens of service accounts."""
        return self.root / "sa.key"

    @property
    def tokens(self) -> Path:
        """The tokens of those who need no service account."""
        return self.root / "tokens.csv"

    @property
    def audit_policy(self) -> Path:
        """What goes into the audit log."""
        return self.root / "audit-policy.json"

    @property
    def audit_log(self) -> Path:
        """What the API server was asked."""
        return self.root / "audit.log"

    def etcd(self) -> list[str]:
        """Return etcd's command line."""
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            str(self.programs / ETCD),
            *(f"--data-dir={self.root / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
        ]

    def api_server(self, certificate: Path, key: Path) -> list[str]:
        """Return the API server's command line."""
        return [
            str(self.programs / API_SERVER),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"),
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            f"--service-account-key-file={self.signing_key}",
            f"--service-account-signing-key-file={self.signing_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={self.tokens}",
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
            *("--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true"),
            *("--endpoint-reconciler-type=none", "--kubelet-preferred-address-types=InternalIP,Hostname"),
            f"--audit-policy-file={self.audit_policy}",
            *(f"--audit-log-path={self.audit_log}", "--audit-log-mode=blocking"),
        ]

    def controller_manager(self, kubeconfig: Path, ca_file: Path, controllers: Sequence[str]) -> list[str]:
        """Return the controller manager's command line."""
        return [
            str(self.programs / CONTROLLER_MANAGER),
            *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--use-service-account-credentials=true"),
            *(f"--service-account-private-key-file={self.signing_key}", f"--root-ca-file={ca_file}"),
            *(f"--controllers={','.join(controllers)}", "--bind-address=127.0.0.1", "--secure-port=0"),
            f"--flex-volume-plugin-dir={self.root / 'volume-plugins'}",  # the default would be made on this machine
        ]

    def scheduler(self, kubeconfig: Path) -> list[str]:
        """Return the scheduler's command line."""
        options = ("--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0")
        return [str(self.programs / SCHEDULER), f"--kubeconfig={kubeconfig}", *options]
