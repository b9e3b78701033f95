"""The chart in a real API server, by Helm 3 or Helm 4."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.control_plane import ControlPlane
from tests.chart.helm import CHART, helm
from tests.cluster.fleet import POLICIES, eventually

CRDS = ("imagecachepolicies.basekeeper.io", "nodeimagecaches.basekeeper.io")
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
Object = dict[str, Any]


@dataclass
class Cluster:
    """A control plane, one version of Helm, and a namespace that nothing else uses."""

    plane: ControlPlane
    version: str
    namespace: str
    releases: set[tuple[str, str]] = field(default_factory=set)

    def helm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Helm as the administrator."""
        return helm(self.version, *words, kubeconfig=self.plane.admin)

    def install(
        self, *words: str, release: str = "basekeeper", chart: Path = CHART, namespace: str | None = None
    ) -> str:
        """Install, and return what the notes say; a failure is one of the test."""
        done = self.try_install(*words, release=release, chart=chart, namespace=namespace)
        assert done.returncode == 0, done.stderr
        eventually(lambda: self.plane.api("GET", POLICIES), "the API server serves policies")
        return done.stdout

    def try_install(
        self, *words: str, release: str = "basekeeper", chart: Path = CHART, namespace: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Install, and return how it went."""
        where = namespace or self.namespace
        self.releases.add((release, where))
        return self.helm("install", release, str(chart), "--namespace", where, "--create-namespace", *words)

    def upgrade(self, *words: str, chart: Path = CHART) -> None:
        """Upgrade the release."""
        done = self.helm("upgrade", "basekeeper", str(chart), "--namespace", self.namespace, *words)
        assert done.returncode == 0, done.stderr

    def uninstall(self, release: str = "basekeeper", namespace: str | None = None) -> None:
        """Uninstall a release."""
        done = self.helm("uninstall", release, "--namespace", namespace or self.namespace)
        assert done.returncode == 0, done.stderr
        self.releases.discard((release, namespace or self.namespace))

    def clear(self) -> None:
        """Leave neither releases nor definitions behind."""
        for release, namespace in self.releases:
            self.helm("uninstall", release, "--namespace", namespace)
        self.plane.kubectl("delete", "crd", "--ignore-not-found", *CRDS)

    def policy(self, name: str = "compute") -> Object:
        """A policy as it is stored."""
        found: Object = self.plane.api("GET", f"{POLICIES}/{name}")
        return found

    def described(self) -> str:
        """What the definition of policies says it is."""
        (version,) = self.plane.api("GET", f"{DEFINITIONS}/{CRDS[0]}")["spec"]["versions"]
        return str(version["schema"]["openAPIV3Schema"]["description"])
