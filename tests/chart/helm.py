"""The chart as Helm makes it: rendered once for each version of Helm and each set of values, and looked at by many."""

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.control_plane_programs import tool

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm/basekeeper"
HELMS = ("helm3", "helm4")
_PROGRAM = {"helm3": "helm3", "helm4": "helm"}
RELEASE, NAMESPACE = "basekeeper", "basekeeper"
KUBERNETES = "1.37"
OPERATOR = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
"""Kinds that a cluster with the Prometheus operator serves."""
VALUES = (None, *sorted((CHART / "ci").glob("*.yaml")), *sorted((CHART / "values_overrides").glob("*.yaml")))
"""Every set of values that comes with the chart; None is its defaults."""
Object = dict[str, Any]


def name_of(values: Path | None) -> str:
    """How a test is called after a set of values."""
    return "defaults" if values is None else values.stem


@functools.cache
def _home() -> tempfile.TemporaryDirectory[str]:
    """A home without anybody's settings; it is gone when the tests are."""
    return tempfile.TemporaryDirectory(prefix="basekeeper-helm-")


def helm(
    version: str, *words: str, kubeconfig: Path | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Helm, with a cluster or without one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))}
    environment |= {"HOME": _home().name, "KUBECONFIG": str(kubeconfig or "/dev/null")}
    command = [str(tool(version) / _PROGRAM[version]), *words]
    return subprocess.run(
        command, env=environment, input=stdin or "", capture_output=True, text=True, check=False, timeout=120
    )


def template(
    version: str,
    *,
    values: Path | None = None,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    api_versions: tuple[str, ...] = OPERATOR,
    extra: Mapping[str, Any] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Render the chart; `extra` are values on top."""
    words = ["template", release, str(CHART), "--namespace", namespace, "--kube-version", KUBERNETES]
    words += [word for kind in api_versions for word in ("--api-versions", kind)]
    words += ["--values", str(values)] if values else []
    words += ["--values", "-"] if extra is not None else []
    return helm(version, *words, stdin=None if extra is None else yaml.safe_dump(dict(extra)))


@functools.cache
def rendered(
    version: str, values: Path | None = None, release: str = RELEASE, namespace: str = NAMESPACE
) -> tuple[Object, ...]:
    """The objects of a set of values. They are shared: look, do not touch."""
    return tuple(objects(text(version, values, release, namespace)))


@functools.cache
def text(version: str, values: Path | None = None, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
    """The same as Helm writes it."""
    done = template(version, values=values, release=release, namespace=namespace)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def objects(manifest: str) -> Iterator[Object]:
    """The objects of a manifest."""
    return (item for item in yaml.load_all(manifest, Loader=_Loader) if item)


class _Loader(yaml.CSafeLoader):
    """Takes no key twice: YAML forbids it, most readers let the last one win, and then nobody knows which."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {keys}"
        return super().construct_mapping(node, deep)


def one(found: tuple[Object, ...], kind: str, name: str) -> Object:
    """The object of this kind and name."""
    (item,) = [item for item in found if item["kind"] == kind and item["metadata"]["name"] == name]
    return item


def of_kind(found: tuple[Object, ...], *kinds: str) -> list[Object]:
    """All objects of these kinds."""
    return [item for item in found if item["kind"] in kinds]
