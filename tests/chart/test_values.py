"""Values that cannot be meant are refused, by name and with a sentence: the schema is closed, and pairs are checked."""

import functools
import json
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.helm import CHART, objects, template

Schema = dict[str, Any]
Path = tuple[str, ...]
SCHEMA: Schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
NAMES_OF_OTHERS = {"labels", "annotations", "nodeSelector", "commonLabels", "podLabels", "podAnnotations",
                   "matchLabels", "requests", "limits"}  # fmt: skip
"""Maps whose keys are somebody else's to choose; their values have a type."""
SHAPES_OF_OTHERS = {
    "global",
    "volume",
    "nodeAffinity",
    "podAffinity",
    "podAntiAffinity",
    "podSelector",
    "namespaceSelector",
}
"""Objects that Kubernetes defines, or Helm: the API server knows them better."""


def nodes(schema: Schema, path: Path = ()) -> Iterator[tuple[Path, Schema]]:
    """Every part of a schema that may be an object."""
    if "object" in str(schema.get("type")):
        yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, (*path, name))
    if isinstance(items := schema.get("items"), dict):
        yield from nodes(items, (*path, "[]"))


OBJECTS = dict(nodes(SCHEMA))


def test_every_object_of_the_schema_is_closed_but_those_that_belong_to_others() -> None:
    open_ones = {path[-1] for path, schema in OBJECTS.items() if schema.get("additionalProperties") is not False}
    assert open_ones <= NAMES_OF_OTHERS | SHAPES_OF_OTHERS
    typed = {path for path, schema in OBJECTS.items() if isinstance(schema.get("additionalProperties"), dict)}
    assert {path[-1] for path in typed} <= NAMES_OF_OTHERS


def under(path: Path, content: Any) -> Any:
    """Values with this content at a path."""
    if not path:
        return content
    inner = under(path[1:], content)
    return [inner] if path[0] == "[]" else {path[0]: inner}


@pytest.mark.parametrize(
    "path", [path for path, schema in OBJECTS.items() if schema.get("additionalProperties") is False], ids="/".join
)
def test_an_unknown_name_is_refused_anywhere(path: Path) -> None:
    found = list(jsonschema.Draft7Validator(SCHEMA).iter_errors(under(path, {"unheardOf": 1})))
    assert any("'unheardOf' was unexpected" in error.message for error in found)


@pytest.mark.parametrize("values", [{"agnet": {}}, {"agent": {"paths": {"instnaces": "/x"}}},
                                    {"policy": {"spec": {"mode": "Audit", "intervall": "1h"}}}],
                         ids=["top", "deep", "policy"])  # fmt: skip
def test_helm_names_the_unknown_value(version: str, values: dict[str, Any]) -> None:
    done = template(version, extra=values)
    assert done.returncode != 0
    assert any(name in done.stderr for name in ("agnet", "instnaces", "intervall"))


def test_every_default_has_a_place_in_the_schema_and_the_other_way_round() -> None:
    jsonschema.validate(DEFAULTS, SCHEMA)
    declared = {path for path in leaves(SCHEMA) if path[:2] != ("policy", "spec")}
    assert declared - set(given(DEFAULTS)) == OPTIONAL


OPTIONAL = (
    {("agent", "updateStrategy", "rollingUpdate", "maxSurge")}
    | {("agent", "identity", "seLinuxOptions", name) for name in ("user", "role", "type", "level")}
    | {
        (part, name, kind)
        for part in ("agent", "controller")
        for name, kinds in (("affinity", ("nodeAffinity", "podAffinity", "podAntiAffinity")),)
        for kind in kinds
    }
)
"""What may be given and has no default: parts of Kubernetes' own shapes."""


def leaves(schema: Schema, path: Path = ()) -> Iterator[Path]:
    """Every part of a schema that is no closed object."""
    if schema.get("properties"):
        for name, part in schema["properties"].items():
            yield from leaves(part, (*path, name))
    else:
        yield path


def given(values: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of values, down to those that the schema takes as a whole."""
    yield path
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from given(value, (*path, name))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a label of the chart's own": ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "app.kubernetes.io/name"),
    "root as an ordinary uid": ({"agent": {"identity": {"user": 0}}}, "user"),
    "a libvirt far away": ({"agent": {"libvirt": {"uri": "qemu+tcp://10.0.0.1/system"}}}, "uri"),
    "a path that is not absolute": ({"agent": {"paths": {"nova": "var/lib/nova"}}}, "nova"),
    "a duration without a unit": ({"agent": {"spawnGrace": "10"}}, "spawnGrace"),
    "a mode that there is not": ({"policy": {"spec": {"mode": "Delete"}}}, "mode"),
    "a tag in the repository": ({"image": {"repository": "registry:5000/basekeeper:1.0"}}, "repository"),
    "more than all nodes at once": (
        {"agent": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "200%"}}}},
        "maxUnavailable",
    ),
    "a duration that the Prometheus operator does not know": ({"podMonitor": {"interval": "1.5m"}}, "interval"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "digest"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_value_that_cannot_be_is_refused_with_its_name(case: str) -> None:
    values, name = WRONG[case]
    done = template("helm4", extra=values)
    assert done.returncode != 0
    assert name in done.stderr


def objects_and_leaves(values: Mapping[str, Any], path: Path = ()) -> Iterator[Path]:
    """The path of everything that has a default."""
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, Mapping):
            yield from objects_and_leaves(value, (*path, name))


NOT_SET = [path for path in objects_and_leaves(DEFAULTS) if path[:2] != ("policy", "spec")]
MAY_BE_NOTHING = {"updateStrategy", "resources", "tolerations", "labels"}
"""What Kubernetes has defaults for, or does without."""


@pytest.mark.parametrize("path", NOT_SET, ids=".".join)
def test_a_value_without_content_is_as_its_empty_one_or_is_refused_by_name(path: Path) -> None:
    everything_on = {
        "policy": {"create": True},
        **{part: {"enabled": True} for part in ("podMonitor", "alerts", "networkPolicy")},
        "dashboards": {"enabled": True, "folder": "x"},
    }
    done = template("helm4", extra=merged(everything_on, under(path, None)))
    assert "nil pointer" not in done.stderr
    assert "wrong type" not in done.stderr
    assert "can't evaluate" not in done.stderr
    if done.returncode != 0:
        assert path[-1] in done.stderr
        return
    default = functools.reduce(operator.getitem, path, DEFAULTS)
    assert not default or MAY_BE_NOTHING.intersection(path)


def merged(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others on top."""
    both = dict(values)
    for name, value in others.items():
        inner = both.get(name)
        both[name] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return both


PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "no node selector": (
        {"agent": {"nodeSelector": {"openstack-compute-node": None}}},
        "agent.nodeSelector is empty: agents would run on every node",
    ),
    "a grace as long as the pod's": (
        {"agent": {"graceSeconds": 40}},
        "agent.graceSeconds (40) and agent.terminationGracePeriodSeconds (40) do not fit",
    ),
    "a grace just too long": (
        {"agent": {"graceSeconds": 36}},
        "the second must be at least 5 more than the first",
    ),
    "instances that are not mounted": (
        {"agent": {"paths": {"instances": "/srv/instances"}}},
        "agent.paths.instances (/srv/instances) lies in no directory that agents mount",
    ),
    "a name that only begins alike": (
        {"agent": {"paths": {"instances": "/var/lib/nova2/instances"}}},
        "agent.paths.instances (/var/lib/nova2/instances) lies in no directory that agents mount",
    ),
    "a cache that is not mounted": (
        {"agent": {"paths": {"base": "/srv/base"}}},
        "agent.paths.base (/srv/base) lies in no directory that agents mount",
    ),
    "snapshots that are not mounted": (
        {"agent": {"paths": {"snapshots": "/srv/snapshots"}}},
        "agent.paths.snapshots (/srv/snapshots) lies in no directory that agents mount",
    ),
    "a directory that is mounted already": (
        {"agent": {"paths": {"extra": [{"path": "/var/lib/nova"}]}}},
        "agent.paths.extra names /var/lib/nova, which is mounted already",
    ),
    "a directory twice": (
        {"agent": {"paths": {"extra": [{"path": "/srv/a"}, {"path": "/srv/a", "readOnly": True}]}}},
        "agent.paths.extra names /srv/a, which is mounted already",
    ),
    "a cache that may only be read": (
        {"agent": {"paths": {"base": "/srv/base", "extra": [{"path": "/srv", "readOnly": True}]}}},
        "agent.paths.base (/srv/base) lies in /srv, which agent.paths.extra mounts with readOnly: true",
    ),
    "a way back out of what is mounted": (
        {"agent": {"paths": {"instances": "/var/lib/nova/../instances"}}},
        "the path /var/lib/nova/../instances is not plain",
    ),
    "a variable where a volume is": (
        {"agent": {"paths": {"state": "/srv/basekeeper/$(NODE_NAME)"}}},
        "/srv/basekeeper/$(NODE_NAME) would be a volume, and Kubernetes puts no variables into the paths of volumes",
    ),
    "a variable that the chart sets": (
        {"agent": {"extraEnv": [{"name": "BASEKEEPER_STATE_DIR", "value": "/srv/ledger"}]}},
        "agent.extraEnv names BASEKEEPER_STATE_DIR, which the chart sets itself",
    ),
    "a ledger among the instances": (
        {"agent": {"paths": {"state": "/var/lib/nova/instances/.ledger"}}},
        "agent.paths.state (/var/lib/nova/instances/.ledger) lies in /var/lib/nova/instances",
    ),
    "a ledger in the cache": (
        {"agent": {"paths": {"base": "/var/lib/nova/cache", "state": "/var/lib/nova/cache"}}},
        "agent.paths.state (/var/lib/nova/cache) lies in /var/lib/nova/cache",
    ),
    "a socket in another directory": (
        {"agent": {"libvirt": {"uri": "qemu+unix:///system?socket=/srv/libvirt/libvirt-sock"}}},
        "libvirt-sock) and agent.libvirt.socketDirectory (/run/libvirt) do not fit",
    ),
    "a directory where libvirt's client does not look": (
        {"agent": {"libvirt": {"socketDirectory": "/srv/libvirt"}}},
        "agent.libvirt.uri qemu:///system and agent.libvirt.socketDirectory (/srv/libvirt) do not fit",
    ),
    "one account for both": (
        {"agent": {"serviceAccount": {"name": "one"}}, "controller": {"serviceAccount": {"name": "one"}}},
        "agent.serviceAccount.name and controller.serviceAccount.name are both one",
    ),
    "agents with the controller's default account": (
        {"agent": {"serviceAccount": {"name": "basekeeper-controller"}}},
        "are both basekeeper-controller",
    ),
    "no account for agents": (
        {"agent": {"serviceAccount": {"create": False}}},
        "agent.serviceAccount.create is false and agent.serviceAccount.name is empty",
    ),
    "no account for the controller": (
        {"controller": {"serviceAccount": {"create": False}}},
        "controller.serviceAccount.create is false and controller.serviceAccount.name is empty",
    ),
    "a policy without its definition": (
        {"policy": {"create": True}, "crds": {"install": False}},
        "policy.create needs the CustomResourceDefinitions: this cluster has none, and crds.install is false",
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_values_that_cannot_hold_together_are_refused_with_a_sentence(case: str, version: str) -> None:
    values, sentence = PAIRS[case]
    done = template(version, extra=values)
    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.parametrize(("value", "kind"), [("podMonitor", "PodMonitor"), ("alerts", "PrometheusRule")])
def test_monitoring_that_the_cluster_does_not_know_is_refused_with_what_to_do(value: str, kind: str) -> None:
    done = template("helm4", extra={value: {"enabled": True}}, api_versions=())
    assert done.returncode != 0
    assert f"{value}.enabled: this cluster serves no {kind} (monitoring.coreos.com/v1)" in done.stderr


def test_the_namespace_of_kubernetes_own_controllers_is_refused(version: str) -> None:
    done = template(version, namespace="kube-system")
    assert done.returncode != 0
    assert "namespace: kube-system cannot be basekeeper's" in done.stderr


NEIGHBOURS: dict[str, dict[str, Any]] = {
    "the longest grace that fits": {"agent": {"graceSeconds": 35}},
    "a trailing directory of the extras": {
        "agent": {"paths": {"instances": "/srv/a/instances", "extra": [{"path": "/srv/a"}]}}
    },
    "a cache in a mount of its own below one that may only be read": {
        "agent": {"paths": {"base": "/srv/base", "extra": [{"path": "/srv/base"}, {"path": "/srv", "readOnly": True}]}}
    },
    "a ledger for each of the hosts that share nova's directory": {
        "agent": {"paths": {"state": "/var/lib/nova/basekeeper/$(NODE_NAME)"}}
    },
    "a variable of somebody else's": {"agent": {"extraEnv": [{"name": "TZ", "value": "Europe/Berlin"}]}},
    "a registry with a port": {"image": {"repository": "registry:5000/some/basekeeper"}},
    "no libvirt and whatever directory": {"agent": {"libvirt": {"uri": "none", "socketDirectory": "/srv/none"}}},
    "a policy whose definition is there": {"policy": {"create": True}},
    "a socket below the directory": {
        "agent": {"libvirt": {"uri": "qemu+unix:///system?socket=/run/libvirt/virtqemud-sock-ro"}}
    },
    "a policy that a cluster without the chart's definitions knows": {"crds": {"install": False}},
    "a subchart's global values": {"global": {"anything": {"goes": True}}},
}


@pytest.mark.parametrize("case", NEIGHBOURS)
def test_what_is_just_right_is_taken(case: str, version: str) -> None:
    done = template(version, extra=NEIGHBOURS[case])
    assert done.returncode == 0, done.stderr


def test_a_label_for_one_kind_of_object_wins_over_that_for_all_and_is_there_once(version: str) -> None:
    monitoring = {
        part: {"enabled": True, "labels": {"team": "watchers"}} for part in ("podMonitor", "alerts", "dashboards")
    }
    done = template(version, extra={"commonLabels": {"team": "cloud"}, **monitoring})
    assert done.returncode == 0, done.stderr
    kinds = ("PodMonitor", "PrometheusRule", "ConfigMap")
    teams = {item["kind"]: item["metadata"]["labels"]["team"] for item in objects(done.stdout)}
    assert teams == {kind: "watchers" if kind in kinds else "cloud" for kind in teams}
    assert teams.keys() >= set(kinds)


def test_a_uid_of_a_directory_service_stays_a_whole_number(version: str) -> None:
    """Numbers of a values file are floats to Helm, which writes those from a million on with an exponent."""
    uid, seconds = 1_234_567_890, 1_000_000
    numbers = {
        "agent": {"identity": {"user": uid, "group": uid}, "terminationGracePeriodSeconds": seconds},
        "controller": {"user": uid, "terminationGracePeriodSeconds": seconds},
    }
    done = template(version, extra=numbers)
    assert done.returncode == 0, done.stderr
    pods = [
        item["spec"]["template"]["spec"] for item in objects(done.stdout) if item["kind"] in {"DaemonSet", "Deployment"}
    ]
    for pod in pods:
        assert pod["terminationGracePeriodSeconds"] == seconds
        wanted = pod["containers"][0]["securityContext"]
        assert (wanted["runAsUser"], wanted["runAsGroup"]) == (uid, uid)
        assert isinstance(wanted["runAsUser"], int)
    assert len(pods) == len(("agent", "controller"))
