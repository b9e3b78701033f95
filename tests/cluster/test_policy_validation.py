"""What the API server takes for a policy and what it refuses, with which sentence, and how it shows both kinds.

Policies are sent as some clients send them: a plain POST without `fieldValidation`. What the server keeps, the
controller must accept: the other way round a policy would be stored and not work.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from basekeeper.resources import crd, manifest
from lab.control_plane import ControlPlane
from lab.control_plane_programs import CONTROLLER_MANAGER, programs
from tests.cluster.asking import APPLY, MERGE, Answer, ask
from tests.cluster.fleet import CACHES, DEPLOY, POLICIES, ROOT, Fleet, condition, eventually

UUID = "0f2c3a1e-6d51-4a0b-9f0e-5a1b2c3d4e5f"
NAME = "test-validation"
ROW = {"path": "instance/disk", "reason": "known"}
EXAMPLES = sorted((DEPLOY / "examples").glob("*.yaml"))
TRIP = {"node": "node-a", "trip": "UsersVanished-20261124T101500Z"}
WINDOW = {"schedule": "0 22 * * SAT", "duration": "4h"}
NOTHING = "expected a value, got nothing; give it one or remove it"
UNKNOWN = "unknown field; correct its name or remove it"
EMPTY = "spec.nodeSelector: Invalid value: {}empty; give matchLabels or matchExpressions, or remove nodeSelector"
NODES = "expected a number of nodes such as 5, or a percentage from 1% to 100%"
POLICY_COLUMNS = "NAME MODE NODES CURRENT READY RECLAIMABLE HOLDING FAILING AGE"
NODE_COLUMNS = "NAME POLICY MODE OUTCOME RECLAIMABLE HOLDING LAST PASS AGE"
SIZE = "expected a size above 0 and below 8Ei such as 10Gi"


def _selects(**fields: Any) -> dict[str, Any]:
    return {"nodeSelector": fields}


def _where(key: str, operator: str, **values: Any) -> dict[str, Any]:
    return _selects(matchExpressions=[{"key": key, "operator": operator, **values}])


ACCEPTED: dict[str, dict[str, Any]] = {
    "the least there is": {},
    "the shortest interval": {"interval": "1m"},
    "integrity as it is by default": {"integrity": {}},
    "the shortest interval of verification": {"integrity": {"interval": "1h", "algorithm": "SHA256"}},
    "the longest interval": {"interval": "2562047h"},
    "a fraction of hours": {"interval": "1.5h"},
    "microseconds in both spellings": {"interval": "60000000us", "quarantine": {"retention": "60000000µs"}},
    "the lowest ages": {"minimumAge": dict.fromkeys(("original", "resized", "swap", "ephemeral", "partial"), "10m")},
    "an age for what was never used": {"minimumAge": {"original": "72h", "neverUsed": "72h"}},
    "no retention": {"quarantine": {"retention": "0s"}},
    "a size in binary units": {"limits": {"maxBytes": "10Gi"}},
    "a fraction of a size": {"limits": {"maxBytes": "1.5Ti"}},
    "a size in decimal units": {"limits": {"maxBytes": "500M"}},
    "a size with an exponent": {"limits": {"maxBytes": "1e9"}},
    "a size as a number": {"limits": {"maxBytes": 1048576}},
    "all files": {"limits": {"maxFiles": 1_000_000, "maxPercent": 100}},
    "one node at a time": {"rollout": {"maxNodesPerInterval": 1}},
    "nodes in a text": {"rollout": {"maxNodesPerInterval": "5"}},
    "one percent": {"rollout": {"maxNodesPerInterval": "1%"}},
    "all nodes": {"rollout": {"maxNodesPerInterval": "100%"}},
    "a drain": {"mode": "Enforce", "quarantine": {"drain": "Purge"}},
    "a drain that restores while suspended": {"mode": "Enforce", "suspend": True, "quarantine": {"drain": "Restore"}},
    "as many pins as may be": {"pinnedImages": [UUID] * 256},
    "a pin in upper case": {"pinnedImages": [UUID.upper()]},
    "an acknowledged path": {"acknowledged": [{**ROW, "node": "node-a", "until": "2026-12-31T00:00:00Z"}]},
    "a time with a zone and a fraction": {"acknowledged": [{**ROW, "until": "2026-12-31T00:00:00.5+02:00"}]},
    "labels": _selects(matchLabels={"example.com/role": "compute", "zone": ""}),
    "a label that must be there": _where("zone", "Exists"),
    "values of a label": _where("example.com/zone", "NotIn", values=["a", "b"]),
    "a low priority": {"priority": -5},
    "a trip that is to end": {"resetTrips": [TRIP]},
    "as many trips as may be": {"resetTrips": [TRIP] * 64},
    "want of room": {"pressure": {}},
    "want of room, all said": {
        "pressure": {"highPercent": 100, "lowPercent": 1, "minimumAge": "10m", "ignoreWindows": True}
    },
    "a low mark below the high one's default": {"pressure": {"lowPercent": 84}},
    "a budget": {"maxCacheBytes": "200Gi"},
    "a window": {"maintenanceWindows": [{"schedule": "30 1 * * *", "duration": "2h"}]},
    "a window in a zone": {"maintenanceWindows": [{**WINDOW, "timeZone": "America/Argentina/Buenos_Aires"}]},
    "a window with everything that cron has": {
        "maintenanceWindows": [{**WINDOW, "schedule": "*/20,5-10/2 0-23 L,1 JAN-Mar,dec SUN#1,5L"}]
    },
    "as many windows as may be": {"maintenanceWindows": [WINDOW] * 16},
    "the shortest window": {"maintenanceWindows": [{**WINDOW, "duration": "1m"}]},
    "shared storage that is refused": {"sharedStorage": {"mode": "Refuse"}},
    "shared storage that hosts coordinate": {"sharedStorage": {"mode": "Coordinate", "retiredHosts": ["host-b"]}},
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    # floors, durations
    "an interval of verification below its floor": (
        {"integrity": {"interval": "59m"}},
        "spec.integrity.interval: Invalid value: {}expected a duration from 1h",
    ),
    "no speed of verification": ({"integrity": {"maxBytesPerSecond": 0}}, "spec.integrity.maxBytesPerSecond"),
    "an algorithm that nobody knows": ({"integrity": {"algorithm": "MD5"}}, 'Unsupported value: "MD5"'),
    "an interval below its floor": ({"interval": "59s"}, "spec.interval: Invalid value: {}expected a duration from 1m"),
    "an interval in days": ({"interval": "1d"}, "spec.interval: Invalid value"),
    "an interval without a unit": ({"interval": "60"}, "spec.interval: Invalid value"),
    "an interval as a number": ({"interval": 60}, "spec.interval: Invalid value"),
    "a negative interval": ({"interval": "-1h"}, "spec.interval: Invalid value"),
    "an endless interval": ({"interval": "2562048h"}, "expected a duration from 1m to 2562047h"),
    "a long text as an interval": ({"interval": "1h" * 33}, "spec.interval: Too long"),
    **{
        f"an age of {kind} files below its floor": (
            {"minimumAge": {kind: "9m59s"}},
            f"spec.minimumAge.{kind}: Invalid value: {{}}expected a duration from 10m to 2562047h",
        )
        for kind in ("original", "resized", "swap", "ephemeral", "partial")
    },
    "a shorter age for what was never used": (
        {"minimumAge": {"neverUsed": "23h"}},
        "spec.minimumAge.neverUsed: Invalid value: {}expected a duration no shorter than minimumAge.original",
    ),
    "ages as a list": ({"minimumAge": []}, "spec.minimumAge in body must be of type object"),
    "a negative retention": ({"quarantine": {"retention": "-1s"}}, "spec.quarantine.retention: Invalid value"),
    "an endless retention": ({"quarantine": {"retention": "2562048h"}}, "spec.quarantine.retention: Invalid value"),
    # sizes, numbers
    "no bytes": ({"limits": {"maxBytes": 0}}, f"spec.limits.maxBytes: Invalid value: {{}}{SIZE}"),
    "no bytes in a text": ({"limits": {"maxBytes": "0"}}, f"spec.limits.maxBytes: Invalid value: {{}}{SIZE}"),
    "negative bytes": ({"limits": {"maxBytes": -1}}, f"spec.limits.maxBytes: Invalid value: {{}}{SIZE}"),
    "a part of a byte": ({"limits": {"maxBytes": "0.5"}}, f"spec.limits.maxBytes: Invalid value: {{}}{SIZE}"),
    "a unit that is none": ({"limits": {"maxBytes": "10GB"}}, "spec.limits.maxBytes: Invalid value"),
    "thousandths of a byte": ({"limits": {"maxBytes": "100m"}}, "spec.limits.maxBytes: Invalid value"),
    "more bytes than Kubernetes counts": ({"limits": {"maxBytes": "8Ei"}}, SIZE),
    "a very large exponent": ({"limits": {"maxBytes": "1e99"}}, SIZE),
    "a size of many digits": ({"limits": {"maxBytes": "1" * 65}}, "spec.limits.maxBytes: Too long"),
    "no files": ({"limits": {"maxFiles": 0}}, "spec.limits.maxFiles in body should be greater than or equal to 1"),
    "too many files": ({"limits": {"maxFiles": 1_000_001}}, "spec.limits.maxFiles in body should be less than"),
    "files as a text": ({"limits": {"maxFiles": "20"}}, "spec.limits.maxFiles in body must be of type integer"),
    "no percent": ({"limits": {"maxPercent": 0}}, "spec.limits.maxPercent in body should be greater than"),
    "more than all": ({"limits": {"maxPercent": 101}}, "spec.limits.maxPercent in body should be less than"),
    "a priority of too many bits": ({"priority": 2**31}, "spec.priority in body should be less than"),
    "a text for a flag": ({"suspend": "true"}, "spec.suspend in body must be of type boolean"),
    # want of room
    "marks that are equal": (
        {"pressure": {"highPercent": 80, "lowPercent": 80}},
        "spec.pressure.lowPercent: Invalid value: {}expected less than highPercent",
    ),
    "a high mark below the low one's default": (
        {"pressure": {"highPercent": 75}},
        "spec.pressure.lowPercent: Invalid value: {}expected less than highPercent",
    ),
    "a low mark above the high one's default": (
        {"pressure": {"lowPercent": 85}},
        "spec.pressure.lowPercent: Invalid value: {}expected less than highPercent",
    ),
    "no mark": ({"pressure": {"lowPercent": 0}}, "spec.pressure.lowPercent in body should be greater than or equal"),
    "more than full": ({"pressure": {"highPercent": 101}}, "spec.pressure.highPercent in body should be less than"),
    "an age of want below its floor": (
        {"pressure": {"minimumAge": "9m59s"}},
        "spec.pressure.minimumAge: Invalid value: {}expected a duration from 10m to 2562047h",
    ),
    "no budget at all": ({"maxCacheBytes": 0}, f"spec.maxCacheBytes: Invalid value: {{}}{SIZE}"),
    # rollout
    **{
        f"a wave of {nodes!r}": ({"rollout": {"maxNodesPerInterval": nodes}}, f"spec.rollout.maxNodes{{}}{NODES}")
        for nodes in (0, "0%", "101%", -1, "ten", "10 %", "", 1_000_000)
    },
    # rules across fields
    "a drain in Audit": (
        {"quarantine": {"drain": "Restore"}},
        "spec.quarantine.drain: Invalid value: {}takes mode: Enforce; in Audit nothing is purged or put back",
    ),
    "a purge while suspended": (
        {"mode": "Enforce", "suspend": True, "quarantine": {"drain": "Purge"}},
        "spec.quarantine.drain: Invalid value: {}Purge never acts with suspend: true; remove one of them",
    ),
    "In without values": (_where("a", "In"), "spec.nodeSelector.matchExpressions[0].values: Invalid value: {}required"),
    "In with no values": (_where("a", "In", values=[]), "spec.nodeSelector.matchExpressions[0].values: Invalid value"),
    "Exists with values": (_where("a", "Exists", values=["b"]), "required for the operators In and NotIn, and only"),
    # words
    "a mode in lower case": ({"mode": "enforce"}, 'spec.mode: Unsupported value: "enforce": supported values: "Audit"'),
    "another cachedOnly": ({"cachedOnly": "Drop"}, 'spec.cachedOnly: Unsupported value: "Drop"'),
    "another drain": ({"mode": "Enforce", "quarantine": {"drain": "purge"}}, "spec.quarantine.drain: Unsupported"),
    "another mode of shared storage": ({"sharedStorage": {"mode": "Trust"}}, "spec.sharedStorage.mode: Unsupported"),
    "another operator": (_where("a", "Gt", values=["1"]), "spec.nodeSelector.matchExpressions[0].operator: Unsup"),
    # unknown fields, at every level
    "an unknown field": ({"nodeSelectr": {"matchLabels": {"a": "b"}}}, f"spec.nodeSelectr: {UNKNOWN}"),
    "a field in other letters": ({"NodeSelector": {"matchLabels": {"a": "b"}}}, f"spec.NodeSelector: {UNKNOWN}"),
    "a pin that would pin nothing": ({"pinnedImage": [UUID]}, f"spec.pinnedImage: {UNKNOWN}"),
    "an unknown mark": ({"pressure": {"percent": 80}}, f"spec.pressure.percent: {UNKNOWN}"),
    "an unknown age": ({"minimumAge": {"originals": "1h"}}, f"spec.minimumAge.originals: {UNKNOWN}"),
    "an unknown limit": ({"limits": {"maxFile": 1}}, f"spec.limits.maxFile: {UNKNOWN}"),
    "an unknown field of the quarantine": ({"quarantine": {"retain": "1h"}}, f"spec.quarantine.retain: {UNKNOWN}"),
    "an unknown field of the rollout": ({"rollout": {"maxNodes": 1}}, f"spec.rollout.maxNodes: {UNKNOWN}"),
    "an unknown field of shared storage": ({"sharedStorage": {"hosts": []}}, f"spec.sharedStorage.hosts: {UNKNOWN}"),
    "an unknown field of an acknowledged path": (
        {"acknowledged": [{**ROW, "untill": "2026-12-31T00:00:00Z"}]},
        "spec.acknowledged: an entry has an unknown field; known are node, path, reason, until",
    ),
    "an unknown field of an expression": (
        _where("a", "In", values=["b"], value="c"),
        "spec.nodeSelector.matchExpressions: an entry has an unknown field; known are key, operator, values",
    ),
    "an unknown field beside labels": (
        _selects(matchLabels={"a": "b"}, matchExpression=[]),
        f"spec.nodeSelector.matchExpression: {UNKNOWN}",
    ),
    # selectors that would select every node, or more nodes than they seem to
    "a selector that is misspelt inside": (_selects(matchLabel={"a": "b"}), EMPTY),
    "an empty selector": (_selects(), EMPTY),
    "a selector with no labels": (_selects(matchLabels={}), EMPTY),
    "a selector with no expressions": (_selects(matchExpressions=[]), EMPTY),
    "no selector": ({"nodeSelector": None}, f"spec.nodeSelector: {NOTHING}"),
    "a selector as a text": ({"nodeSelector": "a=b"}, "spec.nodeSelector in body must be of type object"),
    "a label without a value": (
        _selects(matchLabels={"role": None, "zone": "a"}),
        f"spec.nodeSelector.matchLabels.role: {NOTHING}",
    ),
    "labels without a value beside expressions": (
        _where("a", "Exists") | {"nodeSelector": {**_where("a", "Exists")["nodeSelector"], "matchLabels": None}},
        f"spec.nodeSelector.matchLabels: {NOTHING}",
    ),
    "the key of no label": (_selects(matchLabels={"a b": "c"}), "spec.nodeSelector.matchLabels.a b: expected the key"),
    "the value of no label": (_selects(matchLabels={"a": "-"}), "spec.nodeSelector.matchLabels.a in body should match"),
    "a number as a label's value": (_selects(matchLabels={"a": 1}), "spec.nodeSelector.matchLabels.a in body must be"),
    "a key of no label in an expression": (_where("a b", "Exists"), "spec.nodeSelector.matchExpressions[0].key in"),
    # fields without a value, as an empty variable of a template leaves them
    **{
        f"{field} without a value": ({field: None}, f"spec.{field}: {NOTHING}")
        for field in ("suspend", "interval", "minimumAge", "pinnedImages", "limits", "quarantine",
                      "acknowledged", "sharedStorage", "priority", "rollout", "maintenanceWindows",
                      "resetTrips")
    },
    "no limit without saying so": ({"limits": {"maxBytes": None}}, f"spec.limits.maxBytes: {NOTHING}"),
    "an age without a value": ({"minimumAge": {"original": None}}, f"spec.minimumAge.original: {NOTHING}"),
    "a drain without a value": ({"quarantine": {"drain": None}}, "spec.quarantine.drain: Unsupported value: null"),
    "a cachedOnly without a value": ({"cachedOnly": None}, "spec.cachedOnly: Unsupported value: null"),
    "an acknowledged path for no node": (
        {"acknowledged": [{**ROW, "node": None}]}, f"spec.acknowledged: a field of an entry: {NOTHING}",
    ),
    # trips
    **{
        f"the trip {trip!r}": ({"resetTrips": [TRIP, {**TRIP, "trip": trip}]}, "spec.resetTrips[1].trip: Invalid value")
        for trip in ("UsersVanished", "UnknownUsage-20261124T101500Z", "UsersVanished-2026-11-24T10:15:00Z", "")
    },
    "a trip of no node": ({"resetTrips": [{"trip": TRIP["trip"]}]}, "spec.resetTrips[0].node: Required value"),
    "a trip without a name": ({"resetTrips": [{"node": "n"}]}, "spec.resetTrips[0].trip: Required value"),
    "an unknown field of a trip": (
        {"resetTrips": [{**TRIP, "reason": "r"}]},
        "spec.resetTrips: an entry has an unknown field; known are node, trip",
    ),
    "too many trips": ({"resetTrips": [TRIP] * 65}, "spec.resetTrips: Too many: 65"),
    # windows
    **{
        f"the schedule {schedule!r}": (
            {"maintenanceWindows": [WINDOW, {**WINDOW, "schedule": schedule}]},
            "spec.maintenanceWindows[1].schedule: ",
        )
        for schedule in ("@daily", "* * * *", "0 0 0 * * *", "60 * * * *", "0 24 * * *", "0 0 32 * *", "0 0 * 13 *",
                         "0 0 * * 8", " 0 0 * * *", "0 0 * * */0", "", "0" * 129)
    },
    **{
        f"a window of {duration}": (
            {"maintenanceWindows": [{**WINDOW, "duration": duration}]},
            "spec.maintenanceWindows[0].duration: Invalid value: {}expected a duration from 1m to 2562047h",
        )
        for duration in ("0s", "59s", "2562048h")
    },
    **{
        f"the time zone {zone!r}": (
            {"maintenanceWindows": [{**WINDOW, "timeZone": zone}]}, "spec.maintenanceWindows[0].timeZone: Invalid",
        )
        for zone in ("Europe/Berlim", "CEST", "../UTC", "/etc/localtime", "+01:00", "")
    },
    "a window without a schedule": (
        {"maintenanceWindows": [{"duration": "1h"}]}, "spec.maintenanceWindows[0].schedule: Required value",
    ),
    "a window without a duration": (
        {"maintenanceWindows": [{"schedule": "0 0 * * *"}]}, "spec.maintenanceWindows[0].duration: Required value",
    ),
    "an unknown field of a window": (
        {"maintenanceWindows": [{**WINDOW, "timezone": "UTC"}]},
        "spec.maintenanceWindows: an entry has an unknown field; known are schedule, duration, timeZone",
    ),
    "too many windows": ({"maintenanceWindows": [WINDOW] * 17}, "spec.maintenanceWindows: Too many: 17"),
    # lists
    "too many pins": ({"pinnedImages": [UUID] * 257}, "spec.pinnedImages: Too many: 257: must have at most 256 items"),
    "a pin that is no UUID": ({"pinnedImages": [UUID, "cirros"]}, "spec.pinnedImages[1]: Invalid value"),
    "pins as a text": ({"pinnedImages": UUID}, "spec.pinnedImages in body must be of type array"),
    "too many acknowledged paths": ({"acknowledged": [ROW] * 257}, "spec.acknowledged: Too many: 257"),
    "an acknowledged path without a reason": ({"acknowledged": [{"path": "a"}]}, "spec.acknowledged[0].reason: Req"),
    "an acknowledged path that is empty": ({"acknowledged": [{**ROW, "path": ""}]}, "spec.acknowledged[0].path in"),
    "a path that cannot be one": ({"acknowledged": [{**ROW, "path": "a\0b"}]}, "spec.acknowledged[0].path in"),
    **{
        f"the time {time_!r}": ({"acknowledged": [{**ROW, "until": time_}]}, "spec.acknowledged[0].until: Invalid")
        for time_ in ("tomorrow", "2026-12-31", "2026-02-30T00:00:00Z", "2026-12-31T00:00:00", "0000-01-01T00:00:00Z",
                      "2026-12-31t00:00:00z", "2026-12-31T00:00:00+25:00")
    },
}  # fmt: skip


def _policy(spec: dict[str, Any], name: str = NAME) -> dict[str, Any]:
    return {
        "apiVersion": "basekeeper.io/v1alpha1",
        "kind": "ImageCachePolicy",
        "metadata": {"name": name},
        "spec": {"mode": "Audit", **spec},
    }


def _post(cluster: ControlPlane, policy: dict[str, Any]) -> Answer:
    return ask(cluster, "POST", f"{POLICIES}?fieldValidation=Ignore", policy)


@pytest.fixture
def cluster(installed: ControlPlane) -> Iterator[ControlPlane]:
    yield installed
    for policy in ask(installed, "GET", POLICIES).body["items"]:
        ask(installed, "DELETE", f"{POLICIES}/{policy['metadata']['name']}")


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


# --- what is taken and what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ACCEPTED)
def test_the_server_keeps_and_the_controller_accepts(cluster: ControlPlane, case: str) -> None:
    answer = _post(cluster, _policy(ACCEPTED[case]))

    assert answer.ok, answer.message
    assert answer.warnings == ()
    kept = ask(cluster, "GET", f"{POLICIES}/{NAME}").body
    manifest.parse(kept, "kept")  # raises what the controller would say
    assert _without_defaults(kept["spec"], ACCEPTED[case]) == ACCEPTED[case], "nothing of it was dropped"


def _without_defaults(kept: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_defaults(kept[key], value) if isinstance(value, dict) else _rows(kept[key], value)
        for key, value in given.items()
    }


def _rows(kept: Any, given: Any) -> Any:
    if not isinstance(given, list):
        return kept
    pairs = zip(kept, given, strict=True)
    return [_without_defaults(ours, theirs) if isinstance(theirs, dict) else ours for ours, theirs in pairs]


@pytest.mark.parametrize("case", REFUSED)
def test_the_server_refuses_with_a_sentence_that_names_the_field(cluster: ControlPlane, case: str) -> None:
    spec, sentence = REFUSED[case]
    answer = _post(cluster, _policy(spec))

    assert answer.status == 422, answer
    begin, _, end = sentence.partition("{}")  # between them older servers show the value, or its type
    assert begin in answer.message
    assert end in answer.message
    assert ask(cluster, "GET", f"{POLICIES}/{NAME}").status == 404

    assert _post(cluster, _policy({})).ok
    changed = ask(cluster, "PUT", f"{POLICIES}/{NAME}", _replacing(cluster, spec))
    assert begin in changed.message
    assert ask(cluster, "GET", f"{POLICIES}/{NAME}").body["metadata"]["generation"] == 1


def _replacing(cluster: ControlPlane, spec: dict[str, Any]) -> dict[str, Any]:
    there = ask(cluster, "GET", f"{POLICIES}/{NAME}").body
    return {**there, "spec": {"mode": "Audit", **spec}}


@pytest.mark.parametrize("spec", [None, {}, {"mode": None}, {"interval": "1h"}], ids=str)
def test_a_policy_says_its_mode(cluster: ControlPlane, spec: Any) -> None:
    answer = _post(cluster, {**_policy({}), "spec": spec})

    assert answer.status == 422
    assert "Required value" in answer.message


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("an unknown field", f"spec.nodeSelectr: {UNKNOWN}"),
        ("an empty selector", EMPTY),
        ("no selector", f'"nodeSelector":null: {NOTHING}'),
        ("a label without a value", f'"role":null: {NOTHING}'),
        ("an interval below its floor", "expected a duration from 1m to 2562047h"),
    ],
)
def test_kubectl_shows_the_sentence(cluster: ControlPlane, case: str, said: str) -> None:
    manifest_ = json.dumps(_policy(REFUSED[case][0]))
    for how in ("--validate=true", "--validate=false", "--server-side"):
        done = cluster.kubectl("apply", how, "-f", "-", stdin=manifest_, check=False)

        assert done.returncode == 1, how
        # By itself it drops fields without a value; then the server looks at what it says that it was given.
        by_server = said.replace('"nodeSelector":null', "spec.nodeSelector").replace(
            '"role":null', "spec.nodeSelector.matchLabels.role"
        )
        _, _, end = (by_server if how == "--server-side" else said).rpartition("{}")
        assert end in " ".join(done.stderr.split())
        assert ask(cluster, "GET", f"{POLICIES}/{NAME}").status == 404


def test_a_reason_may_speak_of_null(cluster: ControlPlane) -> None:
    row = {**ROW, "reason": 'qemu-img says "backing":null, and "role":null'}
    policy = _policy({"acknowledged": [row]}) | {"metadata": {"name": NAME, "creationTimestamp": None}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(policy))


def test_what_is_not_said_is_filled_in(cluster: ControlPlane) -> None:
    _post(cluster, _policy({}))

    assert ask(cluster, "GET", f"{POLICIES}/{NAME}").body["spec"] == {
        "mode": "Audit",
        "suspend": False,
        "interval": "40m",
        "minimumAge": {"original": "24h", "resized": "1h", "swap": "24h", "ephemeral": "24h", "partial": "24h"},
        "cachedOnly": "Keep",
        "pinnedImages": [],
        "limits": {"maxFiles": 20, "maxPercent": 25},
        "quarantine": {"retention": "6h"},
        "acknowledged": [],
        "sharedStorage": {"mode": "Refuse", "retiredHosts": []},
        "maintenanceWindows": [],
        "resetTrips": [],
        "touchInUse": False,
        "priority": 0,
        "rollout": {"maxNodesPerInterval": "10%"},
    }


# --- definitions ---------------------------------------------------------------------------------------------------


def test_the_server_has_nothing_to_say_against_the_definitions(cluster: ControlPlane) -> None:
    for plural in ("imagecachepolicies", "nodeimagecaches"):
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.basekeeper.io"
        found = ask(cluster, "GET", path).body
        said = {item["type"]: item["status"] for item in found["status"]["conditions"]}
        assert said == {"NamesAccepted": "True", "Established": "True"}, found["status"]


def test_the_server_finds_no_mistake_in_the_admission_policies(cluster: ControlPlane) -> None:
    """The controller that checks their types against the definitions runs in every cluster; here only for this."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    where = programs(os.environ.get("BASEKEEPER_TEST_KUBERNETES") or "current")
    command = [
        str(where / CONTROLLER_MANAGER),
        *(f"--kubeconfig={cluster.admin}", "--leader-elect=false", "--secure-port=0"),
        "--controllers=validatingadmissionpolicy-status-controller",
    ]
    checker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = eventually(lambda: _all_checked(ask(cluster, "GET", path).body["items"]), "the policies are checked")
    finally:
        checker.terminate()
        checker.wait()
    assert {item["metadata"]["name"]: item["status"]["typeChecking"] for item in found} == {
        "imagecachepolicies.basekeeper.io": {},
        "nodeimagecaches.basekeeper.io": {},
    }


def _all_checked(policies: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    ours = [item for item in policies if item["metadata"]["name"].endswith(".basekeeper.io")]
    done = all("typeChecking" in item.get("status", {}) for item in ours)
    return ours if done else None


def test_explain_describes_every_field(cluster: ControlPlane) -> None:
    shown = cluster.kubectl("explain", "icp.spec", "--recursive").stdout
    for field in ("nodeSelector", "matchLabels", "maxNodesPerInterval", "retention", "pinnedImages"):
        assert f"  {field}\t" in shown
    assert "nova: [image_cache] manager_interval" in " ".join(
        cluster.kubectl("explain", "icp.spec.interval").stdout.split()
    )

    schemas = ask(cluster, "GET", "/openapi/v3/apis/basekeeper.io/v1alpha1").body["components"]["schemas"]
    for kind in ("ImageCachePolicy", "NodeImageCache"):
        properties = schemas[f"io.basekeeper.v1alpha1.{kind}"]["properties"]
        mute = [path for part in ("spec", "status") for path in _mute(properties[part], part)]
        assert mute == []


def _mute(schema: dict[str, Any], path: str) -> Iterator[str]:
    """The fields below `path` that say nothing about themselves."""
    for name, part in schema.get("properties", {}).items():
        if not part.get("description", "").strip():
            yield f"{path}.{name}"
        yield from _mute(part, f"{path}.{name}")
        yield from _mute(part.get("items", {}), f"{path}.{name}[]")


def test_every_setting_says_its_default_and_what_nova_calls_it() -> None:
    spec = crd.policies()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for path, text in _settings(spec, "spec"):
        assert "Default" in text or path == "spec.mode", path
        assert "nova:" in text or path.startswith(("spec.acknowledged.", "spec.nodeSelector.")), path


def _settings(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, part in schema["properties"].items():
        if "properties" in part:
            yield from _settings(part, f"{path}.{name}") if name != "nodeSelector" else ()
        else:
            yield f"{path}.{name}", part["description"]


# --- how it shows --------------------------------------------------------------------------------------------------


def test_columns_short_names_and_category(cluster: ControlPlane) -> None:
    _post(cluster, _policy({"mode": "Enforce"}))
    cache = {"apiVersion": "basekeeper.io/v1alpha1", "kind": "NodeImageCache", "metadata": {"name": NAME}}
    cluster.api("POST", CACHES, {**cache, "spec": {"mode": "Audit"}})
    try:
        policies = cluster.kubectl("get", "icp").stdout.splitlines()
        assert " ".join(policies[0].split()) == POLICY_COLUMNS
        assert policies[1].split()[:2] == [NAME, "Enforce"]
        nodes = cluster.kubectl("get", "nic").stdout.splitlines()
        assert " ".join(nodes[0].split()) == NODE_COLUMNS
        wide = cluster.kubectl("get", "icp", "-o", "wide").stdout.splitlines()[0]
        assert [
            name for name in ("ROLLING OUT", "STALE", "MISSING", "OVERRIDDEN", "SUSPENDED") if name not in wide
        ] == []
        both = cluster.kubectl("get", "basekeeper", "-o", "name").stdout.split()
        assert both == [f"imagecachepolicy.basekeeper.io/{NAME}", f"nodeimagecache.basekeeper.io/{NAME}"]
        for kind, selector, found in (
            ("icp", "spec.mode=Enforce", True),
            ("icp", "spec.mode=Audit", False),
            ("nic", "spec.mode=Audit", True),
            ("nic", "spec.policy.name=compute", False),
        ):
            listed = cluster.kubectl("get", kind, "--field-selector", selector, "-o", "name").stdout
            assert bool(listed) is found, (kind, selector)
    finally:
        cluster.api("DELETE", f"{CACHES}/{NAME}")


def test_who_writes_the_spec_does_not_write_the_status_and_the_other_way_round(cluster: ControlPlane) -> None:
    _post(cluster, _policy({}) | {"status": {"reclaimable": "much"}})
    path = f"{POLICIES}/{NAME}"
    assert "status" not in ask(cluster, "GET", path).body

    by_spec = ask(
        cluster, "PATCH", path, {"spec": {"suspend": True}, "status": {"reclaimable": "much"}}, content_type=MERGE
    )
    assert by_spec.ok
    assert "status" not in by_spec.body
    status = {"spec": {"mode": "Enforce"}, "status": {"reclaimable": "1 GiB"}}
    by_status = ask(cluster, "PATCH", f"{path}/status", status, content_type=MERGE)
    assert by_status.body["status"]["reclaimable"] == "1 GiB"
    assert (by_status.body["spec"]["mode"], by_status.body["metadata"]["generation"]) == ("Audit", 2)


def test_two_people_apply_their_own_fields(cluster: ControlPlane) -> None:
    def apply(manager: str, **spec: Any) -> Answer:
        policy = {**_policy({}), "spec": spec}
        return ask(cluster, "PATCH", f"{POLICIES}/{NAME}?fieldManager={manager}", policy, content_type=APPLY)

    assert apply("platform", mode="Audit", limits={"maxFiles": 5}).ok
    assert apply("images", mode="Audit", pinnedImages=[UUID]).ok

    conflict = apply("images", mode="Enforce", pinnedImages=[UUID])
    assert conflict.status == 409
    assert 'conflict with "platform": .spec.mode' in conflict.message

    assert apply("platform", mode="Audit", limits={"maxPercent": 50}).ok
    spec = ask(cluster, "GET", f"{POLICIES}/{NAME}").body["spec"]
    assert (spec["pinnedImages"], spec["limits"]) == ([UUID], {"maxFiles": 20, "maxPercent": 50})
    assert not apply("images", mode="Audit", pinnedImage=[UUID]).ok


# --- what we hand out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_can_be_tried_and_applied(cluster: ControlPlane, path: Path) -> None:
    for how in (("--dry-run=server",), (), ("--server-side", "--force-conflicts")):
        done = cluster.kubectl("apply", *how, "-f", str(path))
        assert "Warning" not in done.stderr


def test_the_controller_accepts_every_example(fleet: Fleet) -> None:
    names = []
    for path in EXAMPLES:
        for policy in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            policy["metadata"]["name"] += f"-{path.stem}"
            names.append(policy["metadata"]["name"])
            fleet.cluster.api("POST", POLICIES, policy)
    fleet.start_controller()

    for name in names:
        ready = eventually(functools.partial(_ready, fleet, name), f"the controller says something of {name}")
        assert (ready["status"], ready["reason"], ready["observedGeneration"]) == ("True", "NoNodes", 1)


def _ready(fleet: Fleet, name: str) -> dict[str, Any]:
    return condition(fleet.policy(name), "Ready")


def test_the_server_takes_what_a_nova_conf_becomes(cluster: ControlPlane, tmp_path: Path) -> None:
    nova_conf = tmp_path / "nova.conf"
    nova_conf.write_text(
        "[DEFAULT]\nimage_cache_manager_interval = 1200\n"
        "[image_cache]\nremove_unused_base_images = true\nremove_unused_original_minimum_age_seconds = 86400\n"
    )
    command = [sys.executable, "-m", "basekeeper", "import-nova-conf", str(nova_conf)]
    environment = {"PYTHONPATH": str(ROOT / "operator"), "PATH": ""}
    policy = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    for how in (("--dry-run=server",), ()):
        cluster.kubectl("apply", *how, "-f", "-", stdin=policy)
    (kept,) = ask(cluster, "GET", POLICIES).body["items"]
    assert (kept["spec"]["interval"], kept["spec"]["minimumAge"]["original"]) == ("20m", "24h")
    manifest.parse(kept, "kept")
