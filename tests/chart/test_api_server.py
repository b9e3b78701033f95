"""What a real API server says to every object of the chart, asked for a dry run: nothing is stored."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from tests.chart.cluster import CRDS
from tests.chart.helm import DEPLOY, NAMESPACE, ROOT, text
from tests.cluster.fleet import started

MONITORING = ("podmonitors", "prometheusrules")


@pytest.fixture(scope="module")
def knowing() -> Iterator[ControlPlane]:
    """A cluster that knows every kind that the chart may render."""
    found = subprocess.run([str(ROOT / "scripts/monitoring-crds")], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    directory = Path(found.stdout.strip())
    kinds = [str(directory / f"monitoring.coreos.com_{kind}.yaml") for kind in MONITORING]
    words = [word for file in (*kinds, str(DEPLOY / "crds")) for word in ("-f", file)]
    with started() as cluster:
        cluster.kubectl("apply", "--server-side", *words)
        for kind in (*CRDS, *(f"{kind}.monitoring.coreos.com" for kind in MONITORING)):
            cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{kind}")
        # A dry run stores nothing, so pods would not find the accounts that come before them.
        cluster.kubectl("create", "namespace", NAMESPACE)
        for account in ("basekeeper-agent", "basekeeper-test"):
            cluster.kubectl("create", "serviceaccount", account, "--namespace", NAMESPACE)
        yield cluster


def test_an_api_server_takes_every_object_without_a_warning(knowing: ControlPlane, values: Path | None) -> None:
    done = knowing.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text("helm4", values), check=False
    )
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if "missing the kubectl.kubernetes.io/last-applied" not in line]
    assert warned == []
