"""The definitions that are made from the models: in the checkout as made, bounded, described, and without surprises."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from basekeeper.resources import admission, crd
from basekeeper.resources.generated import manifests
from basekeeper.resources.image_cache_policy import ImageCachePolicy, PolicySpec
from basekeeper.resources.node_image_cache import NodeSpec
from tests.unit.structural import spec_and_status, walk, wrongs

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = {"policies": crd.policies(), "nodes": crd.nodes()}
HALVES = {
    f"{half} of {name}": schema
    for name, definition in DEFINITIONS.items()
    for half, schema in zip(("spec", "status"), spec_and_status(definition), strict=True)
}
POLICY_SPEC = HALVES["spec of policies"]

FIELDS = {
    *("nodeSelector", "nodeSelector.matchLabels", "nodeSelector.matchExpressions", "priority", "mode", "suspend"),
    *("interval", "minimumAge.original", "minimumAge.resized", "minimumAge.swap", "minimumAge.ephemeral"),
    *(
        "minimumAge.partial",
        "minimumAge.neverUsed",
        "cachedOnly",
        "pinnedImages",
        "limits.maxFiles",
        "limits.maxBytes",
        "limits.maxPercent",
    ),
    *("rollout.maxNodesPerInterval", "quarantine.drain", "quarantine.retention", "acknowledged", "acknowledged[].node"),
    *("acknowledged[].path", "acknowledged[].reason", "acknowledged[].until", "sharedStorage.mode"),
    *("sharedStorage.retiredHosts", "touchInUse"),
    *("pressure.highPercent", "pressure.lowPercent", "pressure.minimumAge", "pressure.ignoreWindows", "maxCacheBytes"),
    *("integrity.interval", "integrity.maxBytesPerSecond", "integrity.algorithm"),
    *("resetTrips[].node", "resetTrips[].trip"),
    *("maintenanceWindows[].schedule", "maintenanceWindows[].duration", "maintenanceWindows[].timeZone"),
}
"""The fields of a policy that the design names."""


@pytest.mark.parametrize("name", sorted(manifests()))
def test_what_is_made_is_in_the_checkout_as_it_is_made(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == manifests()[name], "run `make generate`"


def test_no_other_definition_is_in_the_checkout() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "deploy/crds").iterdir()}
    assert there == {name for name in manifests() if name.startswith("deploy/crds/")}


def test_every_field_of_a_policy_is_there() -> None:
    there = {where.removeprefix("spec.") for where, _ in walk(POLICY_SPEC)}
    assert there >= FIELDS


def test_a_node_is_told_every_setting_that_is_not_about_which_nodes_and_when() -> None:
    theirs = set(HALVES["spec of nodes"]["properties"]) - {"policy", "rollout", "sharedStorageWith"}
    assert theirs == set(POLICY_SPEC["properties"]) - {"nodeSelector", "priority", "rollout"}


@pytest.mark.parametrize("schema", HALVES.values(), ids=HALVES)
def test_every_field_says_what_it_is(schema: Mapping[str, Any]) -> None:
    bare = [where for where, part in walk(schema) if not where.endswith((".*", "[]")) and not part.get("description")]
    assert bare == []


def test_every_setting_says_its_default_and_what_nova_calls_it() -> None:
    asked = {
        where: part["description"]
        for where, part in walk(POLICY_SPEC)
        if where != "spec" and not where.startswith(("spec.nodeSelector.", "spec.acknowledged["))
        if "*" not in where and "[]" not in where
    }
    silent = [where for where, text in asked.items() if "Default" not in text and "Required" not in text]
    assert (silent, [where for where, text in asked.items() if "nova:" not in text]) == ([], [])


def test_a_default_in_words_is_the_default_in_the_schema() -> None:
    for where, part in walk(POLICY_SPEC):
        default = part.get("default")
        if isinstance(default, str | int) and not isinstance(default, bool):
            assert f"Default {default}" in part["description"], where


@pytest.mark.parametrize("schema", HALVES.values(), ids=HALVES)
def test_everything_has_a_bound(schema: Mapping[str, Any]) -> None:
    unbounded = [where for where, part in walk(schema) if not _is_bounded(part)]
    assert unbounded == []


def _is_bounded(part: Mapping[str, Any]) -> bool:
    if part.get("x-kubernetes-int-or-string"):
        return "maxLength" in part or "x-kubernetes-validations" in part or "pattern" in part
    kind = part["type"]
    if kind == "string":
        pattern = part.get("pattern", "")
        return "maxLength" in part or "enum" in part or (pattern.endswith("$") and not set("*+") & set(pattern))
    if kind == "array":
        return "maxItems" in part
    if "additionalProperties" in part:
        return "maxProperties" in part
    return True


@pytest.mark.parametrize("schema", HALVES.values(), ids=HALVES)
def test_no_list_but_conditions_is_a_map(schema: Mapping[str, Any]) -> None:
    lists = {where: part["x-kubernetes-list-type"] for where, part in walk(schema) if part.get("type") == "array"}
    assert {where for where, kind in lists.items() if kind != "atomic"} <= {"spec.conditions"}
    assert lists.get("spec.conditions", "map") == "map"


@pytest.mark.parametrize("half", ["status of policies", "spec of nodes", "status of nodes"])
def test_what_one_program_writes_is_owned_in_large_pieces(half: str) -> None:
    """The server keeps a list of the owners of every field otherwise, and that is part of every object."""
    inner = [part for where, part in walk(HALVES[half]) if where != "spec" and part.get("type") == "object"]
    assert inner
    assert all(part.get("x-kubernetes-map-type") == "atomic" for part in inner)


_NOT_STRUCTURAL = ("$ref", "$defs", "title", "const", "propertyNames", "patternProperties", "examples", "oneOf")


@pytest.mark.parametrize("schema", HALVES.values(), ids=HALVES)
def test_schemas_are_structural(schema: Mapping[str, Any]) -> None:
    for where, part in walk(schema):
        assert not set(_NOT_STRUCTURAL) & part.keys(), where
        assert "type" in part or part.get("x-kubernetes-int-or-string"), where
        assert not ("properties" in part and "additionalProperties" in part), where


@pytest.mark.parametrize("name", DEFINITIONS)
def test_both_kinds_are_served_as_people_ask_for_them(name: str) -> None:
    spec = DEFINITIONS[name]["spec"]
    (version,) = spec["versions"]
    assert (spec["scope"], spec["names"]["categories"], version["subresources"]) == (
        "Cluster",
        ["basekeeper"],
        {"status": {}},
    )
    assert spec["names"]["shortNames"] == [{"policies": "icp", "nodes": "nic"}[name]]
    assert 1 <= len(version["selectableFields"]) <= 8


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_printed_column_shows_a_field_that_exists(name: str) -> None:
    (version,) = DEFINITIONS[name]["spec"]["versions"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [item["jsonPath"] for item in version["selectableFields"]]
    there = {where.replace("spec", f".{half}", 1) for half in ("spec", "status") for where in _fields(name, half)}
    shown = [path.partition("[?")[0] for path in paths if not path.startswith(".metadata.")]
    assert set(shown) <= there


def _fields(name: str, half: str) -> list[str]:
    return [where for where, _ in walk(HALVES[f"{half} of {name}"])]


# What people write, and what the controller makes of it


@pytest.mark.parametrize("path", sorted((ROOT / "deploy/examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_valid(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert wrongs(document["spec"], POLICY_SPEC) == []
        ImageCachePolicy.model_validate(document)


FULL: dict[str, Any] = {
    "nodeSelector": {
        "matchLabels": {"openstack-compute-node": "enabled"},
        "matchExpressions": [{"key": "gpu", "operator": "NotIn", "values": ["yes"]}],
    },
    "priority": -3,
    "mode": "Enforce",
    "suspend": True,
    "interval": "1m",
    "minimumAge": {
        "original": "10m",
        "resized": "1h",
        "swap": "24h",
        "ephemeral": "1h30m",
        "partial": "10m0s",
        "neverUsed": "720h",
    },
    "cachedOnly": "Remove",
    "pinnedImages": ["0f3c0000-0000-4000-8000-000000000001"],
    "limits": {"maxFiles": 1, "maxBytes": "10Gi", "maxPercent": 100},
    "rollout": {"maxNodesPerInterval": "25%"},
    "quarantine": {"retention": "0s", "drain": "Restore"},
    "pressure": {"highPercent": 90, "lowPercent": 80, "minimumAge": "10m", "ignoreWindows": True},
    "maxCacheBytes": "200Gi",
    "integrity": {"interval": "1h", "maxBytesPerSecond": "100M", "algorithm": "SHA256"},
    "acknowledged": [{"node": "n", "path": "a/disk", "reason": "gone", "until": "2027-01-01T00:00:00Z"}],
    "sharedStorage": {"mode": "Refuse"},
    "resetTrips": [{"node": "n", "trip": "InstancesVanished-20261124T101500Z"}],
    "maintenanceWindows": [{"schedule": "30 1 * * SAT,SUN", "duration": "4h", "timeZone": "Europe/Berlin"}],
}


def test_a_policy_with_every_field_is_valid_and_so_is_what_nodes_are_told_of_it() -> None:
    assert wrongs(FULL, POLICY_SPEC) == []
    given = PolicySpec.model_validate(FULL)
    settings = {name: value for name, value in dict(given).items() if name in NodeSpec.model_fields}
    told = NodeSpec.model_construct(**{**settings, "rollout": None}).model_dump(mode="json", exclude_none=True)
    assert wrongs(told, HALVES["spec of nodes"]) == []
    expected = set(POLICY_SPEC["properties"]) - {"nodeSelector", "priority", "rollout"}
    assert set(told) - {"sharedStorageWith"} == expected
    assert NodeSpec.model_validate(told).quarantine.drain == "Restore"


@pytest.mark.parametrize("field", [where for where, part in walk(POLICY_SPEC) if "properties" in part])
def test_the_admission_policy_knows_every_field(field: str) -> None:
    policy, binding = admission.unknown_fields()
    rules = policy["spec"]["validations"]
    part = dict(walk(POLICY_SPEC))[field]
    known = "[" + ", ".join(f"'{name}'" for name in part["properties"]) + "]"
    about = [rule for rule in rules if f" in {known})" in rule["expression"]]
    assert about, f"nothing refuses an unknown field of {field}"
    assert (policy["spec"]["failurePolicy"], binding["spec"]["validationActions"]) == ("Fail", ["Deny"])
