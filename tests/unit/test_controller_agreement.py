"""The fleet is the reference: which difference between nodes is damage, which is none, and which nobody can judge."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.controller.agreement import Comparison, Disagreement, compare
from basekeeper.controller.digests import packed
from basekeeper.resources.image_cache_policy import MAX_DISAGREEMENTS, DisagreementKind
from basekeeper.resources.node_image_cache import MAX_DIGESTS
from tests.unit.controlling import Cluster, cache, policy

SUSPECT, UNDECIDED, VARIANTS = DisagreementKind
NAME = hashlib.sha1(b"an image", usedforsecurity=False).hexdigest()
GIB = 1 << 30


def digest(content: str, size: int = GIB, algorithm: str = "XXH3") -> str:
    """What a node reports of a base with this content."""
    return f"{algorithm}:{size}:{hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()}"


def compared(told: Mapping[str, Any], identities: Mapping[str, str] | None = None) -> Comparison:
    """What comparing nodes shows: by node, what it reports of NAME, or its whole map."""
    caches = {}
    for node, said in told.items():
        status: dict[str, Any] = {"integrity": {"digests": {NAME: said} if isinstance(said, str) else said}}
        if identities and node in identities:
            status["fileSystem"] = {"identity": identities[node]}
        caches[node] = cache(node, status=status)
    return compare(caches)


A, B, C = digest("a"), digest("b"), digest("c")
SMALL, SMALL_TOO = digest("small", 1 << 20), digest("small too", 1 << 20)
SLOW, SLOW_TOO = digest("a", algorithm="SHA256"), digest("b", algorithm="SHA256")


def said(
    kind: DisagreementKind, *, suspects: str = "", undecided: str = "", agreeing: int, variants: int = 2
) -> Disagreement:
    """A disagreement on NAME; nodes as words."""
    return Disagreement(NAME, kind, tuple(suspects.split()), tuple(undecided.split()), agreeing, variants)


CASES: dict[str, tuple[dict[str, str], Disagreement | None]] = {
    "all the same": ({"n1": A, "n2": A, "n3": A}, None),
    "one node alone has it": ({"n1": A}, None),
    "one against two": ({"n1": A, "n2": B, "n3": A}, said(SUSPECT, suspects="n2", agreeing=2)),
    "two against three, each in its own way": (
        {"n1": A, "n2": A, "n3": A, "n4": B, "n5": C},
        said(SUSPECT, suspects="n4 n5", agreeing=3, variants=3),
    ),
    "two that agree, and more that agree with nobody": (
        {"n1": A, "n2": A, "n3": B, "n4": C, "n5": digest("d")},
        said(SUSPECT, suspects="n3 n4 n5", agreeing=2, variants=4),
    ),
    "one against one": ({"n1": A, "n2": B}, said(UNDECIDED, undecided="n1 n2", agreeing=1)),
    "each against each": (
        {"n1": A, "n2": B, "n3": C},
        said(UNDECIDED, undecided="n1 n2 n3", agreeing=1, variants=3),
    ),
    "two against two": ({"n1": A, "n2": A, "n3": B, "n4": B}, said(VARIANTS, agreeing=2)),
    "one alone beside two groups": (
        {"n1": A, "n2": A, "n3": B, "n4": B, "n5": C},
        said(SUSPECT, suspects="n5", agreeing=2, variants=3),
    ),
    "one of another size": ({"n1": A, "n2": A, "n3": SMALL}, said(VARIANTS, agreeing=2)),
    "one against one of another size": ({"n1": A, "n2": SMALL}, said(VARIANTS, agreeing=1)),
    "one that differs in a small group of another size": (
        {"n1": A, "n2": A, "n3": A, "n4": SMALL, "n5": SMALL, "n6": SMALL_TOO},
        said(SUSPECT, suspects="n6", agreeing=2, variants=3),
    ),
    "undecided among the small, agreed among the large": (
        {"n1": A, "n2": A, "n3": SMALL, "n4": SMALL_TOO},
        said(UNDECIDED, undecided="n3 n4", agreeing=2, variants=3),
    ),
    "undecided among the small, suspect among the large": (
        {"n1": A, "n2": A, "n3": B, "n4": SMALL, "n5": SMALL_TOO},
        said(SUSPECT, suspects="n3", undecided="n4 n5", agreeing=2, variants=4),
    ),
    "another algorithm says nothing": ({"n1": A, "n2": A, "n3": SLOW}, None),
    "each algorithm by itself": (
        {"n1": A, "n2": A, "n3": SLOW, "n4": SLOW_TOO},
        said(UNDECIDED, undecided="n3 n4", agreeing=1),
    ),
    "both algorithms have their suspect": (
        {"n1": A, "n2": A, "n3": A, "n4": B, "n5": SLOW, "n6": SLOW, "n7": SLOW_TOO},
        said(SUSPECT, suspects="n4 n7", agreeing=2),
    ),
}


@pytest.mark.parametrize(("told", "expected"), CASES.values(), ids=CASES)
def test_what_a_difference_means(told: dict[str, str], expected: Disagreement | None) -> None:
    assert compared(told).disagreements == ((expected,) if expected else ())


def test_nodes_that_see_one_directory_have_one_copy_between_them() -> None:
    """Three agents that read the same damaged file do not outvote two other copies."""
    told = {"n1": B, "n2": B, "n3": B, "n4": A, "n5": A}
    shared = {"n1": "x.y", "n2": "x.z", "n3": "w.y"}
    assert compared(told, shared).disagreements == (said(SUSPECT, suspects="n1 n2 n3", agreeing=2),)
    assert compared(told).disagreements == (said(VARIANTS, agreeing=3),)
    assert compared({"n1": A, "n2": A}, shared).bases == {}


def test_bases_that_two_nodes_have_and_what_nodes_have_of_them_are_told() -> None:
    other = hashlib.sha1(b"another", usedforsecurity=False).hexdigest()
    found = compared({"n1": {NAME: A, other: B}, "n2": {NAME: A}, "n3": {other: SLOW}})
    assert found == Comparison({NAME: frozenset({"n1", "n2"})})


NOT_COMPARED: dict[str, Any] = {
    "a swap base": {"swap_512": A},
    "an ephemeral base": {"ephemeral_20_0706d66": A},
    "a resized base": {f"{NAME}_20": A},
    "no digest": {NAME: "damaged"},
    "no text": {NAME: 7},
    "an algorithm that is not known": {NAME: digest("a", algorithm="BLAKE9")},
    "a size without end": {NAME: f"XXH3:{10**30}:{'0' * 32}"},
    "no map": [NAME],
    "nothing": None,
}


@pytest.mark.parametrize("told", NOT_COMPARED.values(), ids=NOT_COMPARED)
def test_what_is_no_original_s_digest_is_left_out(told: Any) -> None:
    assert packed(told) == b""


def test_a_node_that_reports_more_than_a_status_holds_is_cut_to_that() -> None:
    many = {hashlib.sha1(bytes([place]), usedforsecurity=False).hexdigest(): A for place in range(200)}
    assert packed(many) == packed(dict(sorted(many.items())[:MAX_DIGESTS]))


NODES = [f"n{number}" for number in range(8)]
REPORTS = st.dictionaries(st.sampled_from(NODES), st.sampled_from([A, B, C, SMALL, SMALL_TOO, SLOW, SLOW_TOO]))


def alike(said: str) -> str:
    """What of a digest must be the same for a difference to be one: all but the last part."""
    return said.rpartition(":")[0]


@given(REPORTS)
def test_a_suspect_stands_alone_against_two_that_agree_and_nobody_else_is_one(told: dict[str, str]) -> None:
    alone = {node for node, said in told.items() if list(told.values()).count(said) == 1}
    suspects = {
        node
        for node in alone
        if any(alike(said) == alike(told[node]) and list(told.values()).count(said) > 1 for said in told.values())
    }
    assert {node for item in compared(told).disagreements for node in item.suspects} == suspects


@given(REPORTS)
def test_every_disagreement_is_told_and_nothing_that_is_none(told: dict[str, str]) -> None:
    contents = {algorithm: {said for said in told.values() if said.startswith(algorithm)} for algorithm in ("X", "S")}
    assert bool(compared(told).disagreements) == any(len(found) > 1 for found in contents.values())
    for item in compared(told).disagreements:
        assert item.variants == max(map(len, contents.values()))


@given(REPORTS, st.sets(st.sampled_from(NODES)), st.sets(st.sampled_from(NODES)))
def test_each_disagreement_is_told_to_a_policy_that_has_nodes_with_the_base(
    told: dict[str, str], ours: set[str], theirs: set[str]
) -> None:
    """Every node follows one of two policies or none; it need not be that of the suspect."""
    found = compared(told)
    policies = [frozenset(ours), frozenset(theirs - ours)]
    heard = [item for nodes in policies for item in found.told_to(nodes, policies[0] | policies[1]).disagreements]
    followed = [item for item in found.disagreements if not found.bases[item.name].isdisjoint(ours | theirs)]
    assert {item.name for item in heard} == {item.name for item in followed}


@given(REPORTS)
def test_the_order_in_which_nodes_report_makes_no_difference(told: dict[str, str]) -> None:
    assert compared(told) == compared(dict(reversed(told.items())))


@given(REPORTS, st.dictionaries(st.text(), st.text() | st.none() | st.lists(st.integers())) | st.integers())
def test_what_a_node_writes_that_is_no_digest_hides_nobody_else_s(told: dict[str, str], nonsense: Any) -> None:
    assert compared(told | {"n9": nonsense}) == compared(told)


def test_a_node_that_disagrees_on_everything_does_not_fill_the_rows_before_others() -> None:
    names = [hashlib.sha1(bytes([place]), usedforsecurity=False).hexdigest() for place in range(64)]
    told: dict[str, Any] = {node: dict.fromkeys(names, A) for node in ("n1", "n2", "n3")}
    told["n4"] = dict.fromkeys(names, B)
    told["n3"] = told["n3"] | {max(names): C}
    told["n4"].pop(max(names))
    first, second, *_ = compared(told).disagreements
    assert {first.suspects, second.suspects} == {("n3",), ("n4",)}


# --- what a policy's status says ------------------------------------------------------------------------------------


def fleet(*told: str | None, **labels: Any) -> Cluster:
    """Nodes in Audit that report these digests of one base."""
    names = [f"n{number}" for number in range(1, len(told) + 1)]
    cluster = Cluster(policy(mode="Audit", **labels), nodes=names)
    cluster.settle()
    for name, said in zip(names, told, strict=True):
        cluster.statuses[name]["integrity"] = {"digests": {} if said is None else {NAME: said}}
    return cluster


SAID: dict[str, tuple[tuple[str | None, ...], tuple[str, str], str]] = {
    "nothing to compare": ((A, None), ("Unknown", "NothingToCompare"), "spec.integrity"),
    "agreed": ((A, A), ("True", "SameContent"), "of 1 bases"),
    "suspect": ((A, A, B), ("False", "SuspectContent"), "on n3 differs from 2 that agree"),
    "undecided": ((A, B), ("Unknown", "Undecided"), "between n1, n2"),
    "variants": ((A, A, SMALL), ("True", "Variants"), "2 contents, as of other conversions"),
}


@pytest.mark.parametrize(("told", "expected", "words"), SAID.values(), ids=SAID)
def test_the_condition_says_what_is_known(told: tuple[str | None, ...], expected: tuple[str, str], words: str) -> None:
    status, reason, message = fleet(*told).said("CachesAgree")
    assert (status, reason) == expected
    assert words in message


def test_the_status_names_the_suspects() -> None:
    (row,) = fleet(A, A, B).roll_up()["compute"]["disagreements"]
    assert row == {"name": NAME, "kind": "Suspect", "suspects": ["n3"], "undecided": [], "agreeing": 2, "variants": 2}


def test_nodes_of_all_policies_are_the_reference_and_a_policy_hears_of_its_own() -> None:
    cluster = fleet(A, A, B)
    other = policy("other", mode="Audit", priority=1, nodeSelector={"matchLabels": {"pool": "other"}})
    cluster.put(other)
    node = cluster.nodes["n3"]
    cluster.nodes["n3"] = type(node)(node.name, node.uid, node.version, {"pool": "other"}, node.ready)
    cluster.reconcile()
    told = cluster.roll_up()
    assert told["compute"]["disagreements"] == []
    assert [row["suspects"] for row in told["other"]["disagreements"]] == [["n3"]]
    assert cluster.said("CachesAgree", of="compute")[0] == "True"


def test_the_status_has_room_for_some_and_the_weightiest_come_first() -> None:
    cluster = fleet(None, None, None)
    names = [hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest() for number in range(40)]
    for place, name in enumerate(names):
        told = (A, A, B) if place == 33 else (A, B, None)
        for node, said in zip(cluster.statuses, told, strict=True):
            if said is not None:
                cluster.statuses[node]["integrity"]["digests"][name] = said
    rows = cluster.roll_up()["compute"]["disagreements"]
    assert len(rows) == MAX_DISAGREEMENTS
    assert (rows[0]["name"], rows[0]["kind"]) == (names[33], "Suspect")
