"""The admission policy that refuses a field of an `ImageCachePolicy` that this release does not know, by its name.

A custom resource's schema can prune unknown fields or keep them, but not refuse them, and only some clients ask the
server to (`fieldValidation`). For a misspelt `nodeSelector` or `pinnedImages` pruning would be the worst answer.
"""

from typing import Any

from . import crd
from .kinds import GROUP, POLICIES, VERSION

NAME = f"{POLICIES}.{GROUP}"


def unknown_fields() -> tuple[dict[str, Any], dict[str, Any]]:
    """A ValidatingAdmissionPolicy and its binding."""
    schema = crd.policies()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rules = _rules(schema, "spec", "object.spec", "true")
    null = {
        "expression": "!('nodeSelector' in object.spec) || object.spec.nodeSelector != null",
        "message": "spec.nodeSelector: expected a value, got nothing; give it one or remove the line",
    }
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
            "validations": [null, *rules],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/name": "basekeeper"}},
        "spec": {"policyName": NAME, "validationActions": ["Deny"]},
    }
    return policy, binding


def _rules(schema: dict[str, Any], field: str, where: str, there: str) -> list[dict[str, Any]]:
    """A rule for the object at `where`, if it `there` is, and for every object in it."""
    properties: dict[str, Any] = schema["properties"]
    known = "[" + ", ".join(f"'{name}'" for name in properties) + "]"
    strange = f"{where}.filter(field, !(field in {known}))"
    guard = "" if there == "true" else f"!({there}) || "
    rules = [
        {
            "expression": f"{guard}{strange}.size() == 0",
            "messageExpression": f"'{field}.' + {strange}[0] + ': unknown field; correct its name or remove it'",
            "message": f"{field}: has an unknown field",
        }
    ]
    for name, part in properties.items():
        inner, inside = f"{where}.{name}", f"has({where}.{name})"
        present = inside if there == "true" else f"{there} && {inside}"
        if "properties" in part:
            rules += _rules(part, f"{field}.{name}", inner, present)
        elif "properties" in part.get("items", {}):
            names = "[" + ", ".join(f"'{key}'" for key in part["items"]["properties"]) + "]"
            rules.append(
                {
                    "expression": f"!({present}) || {inner}.all(row, row.all(field, field in {names}))",
                    "message": f"{field}.{name}: an entry has an unknown field; known are "
                    f"{', '.join(part['items']['properties'])}",
                }
            )
    return rules
