"""The manifests that are made from the models, as texts: what `scripts/generate` writes and a test compares."""

from typing import Any

import yaml

from . import admission, crd
from .kinds import GROUP, NODES, POLICIES

_HEADER = """\
# Made by `make generate` from operator/basekeeper/resources; change it there.
# yamllint disable rule:line-length
"""


def manifests() -> dict[str, str]:
    """Each file of the checkout that is made, by its path from the top."""
    return {
        f"deploy/crds/{GROUP}_{POLICIES}.yaml": _yaml(crd.policies()),
        f"deploy/crds/{GROUP}_{NODES}.yaml": _yaml(crd.nodes()),
        "deploy/admission/imagecachepolicies.yaml": _yaml(*admission.unknown_fields()),
    }


def policy_spec() -> dict[str, Any]:
    """What the chart's `policy.spec` may be: the resource's own schema, closed, as plain JSON Schema.

    An API server drops unknown fields before anything can name them, so Helm refuses them before they are sent.
    """
    (version,) = crd.policies()["spec"]["versions"]
    closed: dict[str, Any] = _closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return closed


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        kept.setdefault("type", ["integer", "string"])
    if isinstance(schema.get("properties"), dict):
        kept["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
        kept.setdefault("additionalProperties", False)
    return kept


class _Dumper(yaml.SafeDumper):
    """Writes every value out, as people would: without anchors, and lists further in than their name."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 (yaml's name)
        super().increase_indent(flow, False)


def _yaml(*documents: dict[str, Any]) -> str:
    return _HEADER + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
