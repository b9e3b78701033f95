"""The admission policy that refuses, by name, what an `ImageCachePolicy`'s schema could only drop in silence.

That is fields which this release does not know, fields without a value, and keys that are none of a label.

A custom resource's schema can prune unknown fields or keep them, but not refuse them, and only some clients ask the
server to (`fieldValidation`). For a misspelt `nodeSelector` or `pinnedImages` pruning would be the worst answer, and
so it would be for `node:` with nothing after it.
"""

from typing import Any

from . import crd
from .fields import LABEL_KEY_PATTERN
from .kinds import GROUP, POLICIES, VERSION

NAME = f"{POLICIES}.{GROUP}"
_SPEC = "variables.spec"
_LABELS = f"{_SPEC}.nodeSelector.matchLabels"
_NOTHING = "expected a value, got nothing; give it one or remove it"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_NULL = r"""'"[^"\\\\]*":null'"""
"""A field without a value in JSON; quotes in a text have a backslash before them there."""


def unknown_fields() -> tuple[dict[str, Any], dict[str, Any]]:
    """The ValidatingAdmissionPolicy and its binding."""
    schema = crd.policies()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": "basekeeper"}},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [POLICIES],
                    }
                ]
            },
            # As a value of any type: by the type that the schema gives it no field could be unknown, and the server
            # would write warnings about that into this policy's status.
            "variables": [{"name": "spec", "expression": "dyn(object.spec)"}, *_applied()],
            "validations": [*_rules(schema, "spec", _SPEC, ()), _nothing_applied()],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": "basekeeper"}},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    }
    return policy, binding


def _rules(schema: dict[str, Any], field: str, where: str, there: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rules for the object at `where`, if all of `there` hold, and for every object in it."""
    rules = []
    if "properties" in schema:
        known = _names(schema)
        rules.append(_none(field, where, there, f"!(field in {known})", "unknown field; correct its name or remove it"))
    rules.append(_none(field, where, there, f"{where}[field] == null", _NOTHING))
    if where == _LABELS:
        strange = f"!field.matches('{LABEL_KEY_PATTERN}')"
        rules.append(_none(field, where, there, strange, "expected the key of a label"))
    for name, part in schema.get("properties", {}).items():
        inner = f"{where}.{name}"
        # `has` is true of a null as well, whose rule has failed by then: it must not fail this one, too.
        inside = (*there, f"has({inner})", f"{inner} != null")
        if part.get("type") == "object":
            rules += _rules(part, f"{field}.{name}", inner, inside)
        elif "properties" in part.get("items", {}):
            rules += _of_entries(part["items"], f"{field}.{name}", inner, inside)
    return rules


def _none(field: str, where: str, there: tuple[str, ...], wrong: str, sentence: str) -> dict[str, Any]:
    """No field of the object at `where` is `wrong`; one that is, is named."""
    found = f"{where}.filter(field, {wrong})"
    return {
        "expression": f"{_unless(there)}{found}.size() == 0",
        "messageExpression": f"'{field}.' + {found}[0] + ': {sentence}'",
        "message": f"{field}: a field of it: {sentence}",
    }


def _applied() -> list[dict[str, Any]]:
    """The spec as `kubectl apply` was given it: it takes out fields without a value itself, and keeps the original."""
    there = f"has(object.metadata.annotations) && '{_APPLIED}' in object.metadata.annotations"
    spec = "variables.applied.indexOf('\"spec\":')"
    return [
        {"name": "applied", "expression": f"{there} ? object.metadata.annotations['{_APPLIED}'] : ''"},
        {"name": "appliedSpec", "expression": f"{spec} < 0 ? '' : variables.applied.substring({spec})"},
    ]


def _nothing_applied() -> dict[str, Any]:
    found = f"variables.appliedSpec.find({_NULL})"
    return {
        "expression": f"{found} == ''",
        "messageExpression": f"'spec: in what was applied, ' + {found} + ': {_NOTHING}'",
        "message": f"spec: in what was applied: {_NOTHING}",
    }


def _of_entries(schema: dict[str, Any], field: str, where: str, there: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rules for each entry of the list at `where`."""
    names = ", ".join(schema["properties"])
    return [
        {
            "expression": f"{_unless(there)}{where}.all(row, row.all(field, field in {_names(schema)}))",
            "message": f"{field}: an entry has an unknown field; known are {names}",
        },
        {
            "expression": f"{_unless(there)}{where}.all(row, row.all(field, row[field] != null))",
            "message": f"{field}: a field of an entry: {_NOTHING}",
        },
    ]


def _unless(there: tuple[str, ...]) -> str:
    return f"!({' && '.join(there)}) || " if there else ""


def _names(schema: dict[str, Any]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in schema["properties"]) + "]"
