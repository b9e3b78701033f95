"""The chart in a real API server, by Helm 3 or Helm 4."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.control_plane import ControlPlane
from tests.chart.helm import CHART, NAMESPACE, RELEASE, helm
from tests.cluster.fleet import POLICIES, eventually

CRDS = ("imagecachepolicies.basekeeper.io", "nodeimagecaches.basekeeper.io")
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
Object = dict[str, Any]


@dataclass
class Cluster:
    """A control plane and one version of Helm; a release is called basekeeper unless told otherwise."""

    plane: ControlPlane
    version: str
    namespace: str = NAMESPACE

    def helm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Helm as the administrator."""
        return helm(self.version, *words, kubeconfig=self.plane.admin)

    def install(self, *words: str, release: str = RELEASE, chart: Path = CHART) -> str:
        """Install, and return what the notes say; a failure is one of the test."""
        done = self.try_install(*words, release=release, chart=chart)
        assert done.returncode == 0, done.stderr
        eventually(lambda: self.plane.api("GET", POLICIES), "the API server serves policies")
        return done.stdout

    def try_install(self, *words: str, release: str = RELEASE, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
        """Install, and return how it went."""
        return self.helm("install", release, str(chart), "--namespace", self.namespace, "--create-namespace", *words)

    def upgrade(self, *words: str, chart: Path = CHART) -> None:
        """Upgrade the release."""
        done = self.helm("upgrade", RELEASE, str(chart), "--namespace", self.namespace, *words)
        assert done.returncode == 0, done.stderr

    def uninstall(self) -> None:
        """Uninstall the release."""
        done = self.helm("uninstall", RELEASE, "--namespace", self.namespace)
        assert done.returncode == 0, done.stderr

    def policy(self, name: str = "compute") -> Object:
        """A policy as it is stored."""
        found: Object = self.plane.api("GET", f"{POLICIES}/{name}")
        return found

    def described(self) -> str:
        """What the definition of policies says it is."""
        (version,) = self.plane.api("GET", f"{DEFINITIONS}/{CRDS[0]}")["spec"]["versions"]
        return str(version["schema"]["openAPIV3Schema"]["description"])
