"""Every set of values renders, and what it renders is valid and in order, by tools that others wrote."""

import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from lab.control_plane_programs import tool
from tests.chart.helm import (
    CHART,
    HELMS,
    KUBERNETES,
    NAMESPACE,
    RELEASE,
    helm,
    of_kind,
    rendered,
    text,
)

OLDEST = "1.30"
WITHOUT_SCHEMA = {"ImageCachePolicy", "PodMonitor", "PrometheusRule"}
"""Kinds that Kubernetes itself does not know: our own is checked by tests/unit, the others by their owners' types."""
STYLE = """\
extends: default
rules:
  line-length: {max: 120}
  braces: {max-spaces-inside: 0}
  document-start: disable
  comments: {min-spaces-from-content: 1}
"""
RENDERED_STYLE = """\
extends: default
rules:
  # What Helm puts between templates, and long lines of CRDs and CEL, are not for people to read.
  line-length: disable
  document-start: disable
  empty-lines: {max: 4, max-start: 1, max-end: 4}
  comments: {min-spaces-from-content: 1}
  indentation: {indent-sequences: whatever}
"""
SCORE_EXCEPTIONS = {
    # Releases have tags that never move, and a cloud without a registry must be able to start an agent.
    "container-image-pull-policy",
    # Off by default: no policy can name the API server, and one that misses it cuts every agent off (values.yaml).
    "pod-networkpolicy",
}
ROOT_EXCEPTIONS = {
    # What the value asks for: root with four capabilities, for hosts whose files belong to others.
    "container-security-context-user-group-id"
}


def test_helm_3_and_helm_4_render_the_same(values: Path | None) -> None:
    three, four = (sorted(map(repr, rendered(version, values))) for version in HELMS)
    assert three == four


def test_helms_own_linter_is_content(version: str, values: Path | None) -> None:
    words = ["--strict", "--kube-version", KUBERNETES, "--namespace", NAMESPACE]
    # `helm lint` cannot be told of kinds that a cluster serves, and these need some.
    words += [f"--set={name}.enabled=false" for name in ("alerts", "podMonitor")]
    done = helm(version, "lint", str(CHART), *words, *(["--values", str(values)] if values else []))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("kubernetes", [OLDEST, KUBERNETES])
def test_every_object_is_what_kubernetes_own_schema_allows(values: Path | None, kubernetes: str) -> None:
    without = set()
    for item in rendered("helm4", values):
        try:
            kubernetes_validate.validate(item, kubernetes, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            without.add(item["kind"])
    assert without <= WITHOUT_SCHEMA


def test_yamllint_is_content_with_what_is_rendered(version: str, values: Path | None) -> None:
    found = linter.run(text(version, values), YamlLintConfig(RENDERED_STYLE))
    assert [str(problem) for problem in found] == []


@pytest.mark.parametrize(
    "file",
    [CHART / "Chart.yaml", CHART / "values.yaml", *sorted((CHART / "ci").glob("*")),
     *sorted((CHART / "values_overrides").glob("*"))],
    ids=lambda file: file.name,
)  # fmt: skip
def test_yamllint_is_content_with_what_people_write(file: Path) -> None:
    found = linter.run(file.read_text(encoding="utf-8"), YamlLintConfig(STYLE))
    assert [str(problem) for problem in found] == []


def test_kube_score_finds_nothing_but_the_argued_exceptions(values: Path | None) -> None:
    exceptions = SCORE_EXCEPTIONS | (ROOT_EXCEPTIONS if values is not None and values.stem == "root-values" else set())
    words = ["--kubernetes-version", f"v{KUBERNETES}", "--output-format", "ci"]
    # A limit of CPU makes a pass hold nova's locks longer; the chart sets none, and says so.
    words += ["--ignore-container-cpu-limit"]
    words += [word for name in sorted(exceptions) for word in ("--ignore-test", name)]
    words += ["--enable-optional-test", "container-seccomp-profile", "--enable-optional-test", "container-ports-check"]
    done = subprocess.run(
        [str(tool("kube-score") / "kube-score"), "score", *words, "-"],
        input=text("helm4", values),
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    assert (done.returncode, complaints, done.stderr) == (0, [], "")


@pytest.mark.parametrize("exception", sorted(SCORE_EXCEPTIONS))
def test_no_exception_is_made_that_nothing_needs(exception: str) -> None:
    done = subprocess.run(
        [str(tool("kube-score") / "kube-score"), "score", "--output-format", "json", "-"],
        input=text("helm4"),
        capture_output=True,
        text=True,
        check=False,
    )
    found = yaml.safe_load(done.stdout)
    failed = {check["check"]["id"] for item in found for check in item["checks"] if check["grade"] == 1}
    assert exception in failed


def test_every_namespaced_object_says_its_namespace(values: Path | None) -> None:
    """`helm template | kubectl apply` would put it into whichever namespace is at hand."""
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "ImageCachePolicy",
                    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}  # fmt: skip
    for item in rendered("helm4", values):
        assert ("namespace" in item["metadata"]) == (item["kind"] not in cluster_wide), item["metadata"]


def test_two_names_of_a_release_share_no_object_but_those_that_a_cluster_has_once() -> None:
    ours, theirs = rendered("helm4"), rendered("helm4", None, "other", "elsewhere")
    names = [{(item["kind"], item["metadata"]["name"]) for item in found} for found in (ours, theirs)]
    once = {"CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert {kind for kind, _ in names[0] & names[1]} == once


def test_a_release_with_a_long_name_has_names_that_kubernetes_takes() -> None:
    for item in rendered("helm4", None, "r" * 53, NAMESPACE):
        assert len(item["metadata"]["name"]) <= 63
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_a_cluster_that_is_too_old_is_refused(version: str) -> None:
    done = helm(version, "template", RELEASE, str(CHART), "--kube-version", "1.29.9")
    assert done.returncode != 0
    assert "kubeVersion: >=1.30.0-0" in done.stderr


def test_the_monitoring_of_a_cloud_is_rendered_by_its_values() -> None:
    found = rendered("helm4", CHART / "values_overrides/atmosphere.yaml")
    for item in of_kind(found, "PodMonitor", "PrometheusRule"):
        assert item["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert len(of_kind(found, "PodMonitor")) == 2
