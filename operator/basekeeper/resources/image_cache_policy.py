"""`ImageCachePolicy`: what an operator wants done with the image caches of a set of nodes, and what became of it.

The spec is the operator's, the status the controller's. What a node is told of it is in `node_settings`.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from basekeeper.cache import settings
from basekeeper.cache.settings import Drain, Mode, SharedStorageMode

from . import node_settings
from .conditions import Condition
from .fields import (
    Bytes,
    Count,
    LabelKey,
    LabelValue,
    NodeName,
    ObjectName,
    Omittable,
    Strict,
    Timestamp,
    cel,
    omitted,
)
from .node_settings import NodeSettings
from .quantities import shown

API_VERSION = "basekeeper.io/v1alpha1"
KIND = "ImageCachePolicy"
MAX_ROWS = 500
"""Rows of `status.nodeStatuses`: more do not fit well into an object."""
MAX_DISAGREEMENTS = 16
"""Rows of `status.disagreements`."""
MAX_SUSPECTS = 8
"""Nodes that one of these names of each sort."""


class LabelOperator(StrEnum):
    """How a label expression compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelExpression(Strict):
    """One condition on a node's labels."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                (
                    "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0"
                    " : !has(self.values) || size(self.values) == 0"
                ),
                "required for the operators In and NotIn, and only there",
                ".values",
            )
        )
    )

    key: LabelKey
    """The label's key."""
    operator: Annotated[LabelOperator, Field(strict=False)]
    """In, NotIn, Exists or DoesNotExist."""
    values: Annotated[tuple[LabelValue, ...], Field(strict=False, max_length=256)] = ()
    """The values to compare with; for In and NotIn only, and required there."""

    @model_validator(mode="after")
    def _values_fit_operator(self) -> "LabelExpression":
        compares = self.operator in (LabelOperator.IN, LabelOperator.NOT_IN)
        if compares and not self.values:
            raise ValueError(f"expected values for the operator {self.operator}")
        if self.values and not compares:
            raise ValueError(f"expected no values for the operator {self.operator}")
        return self


class LabelSelector(Strict):
    """Which nodes, by their labels; all conditions must hold."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                (
                    "(has(self.matchLabels) && size(self.matchLabels) > 0)"
                    " || (has(self.matchExpressions) && size(self.matchExpressions) > 0)"
                ),
                "empty; give matchLabels or matchExpressions, or remove nodeSelector for every node",
            )
        )
    )

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(default_factory=dict)
    """Labels that a node must carry with exactly these values."""
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(strict=False, max_length=64)] = ()
    """Conditions on labels."""

    @model_validator(mode="after")
    def _not_empty(self) -> "LabelSelector":
        # The API server prunes a misspelt matchLabels, and the empty selector that remains means every node.
        if not self.match_labels and not self.match_expressions:
            raise ValueError("empty; give matchLabels or matchExpressions, or remove nodeSelector for every node")
        return self


_PERCENT = 100
_NODES_PATTERN = r"^([1-9][0-9]{0,5}|([1-9][0-9]?|100)%)$"


def _read_nodes(value: object) -> int | str:
    """A number of nodes, or a percentage; YAML has numbers and texts for it."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if re.fullmatch(_NODES_PATTERN, text) is None:
        raise ValueError(f"expected a number of nodes such as 5, or a percentage from 1% to 100%, got {shown(value)}")
    return value if isinstance(value, int) else text


NodesOrPercent = Annotated[
    Any,
    BeforeValidator(_read_nodes),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            **cel(
                (
                    f"string(self).matches('{_NODES_PATTERN}')",
                    "expected a number of nodes such as 5, or a percentage from 1% to 100%",
                )
            ),
        }
    ),
]
"""Nodes: a number, or a percentage of those that follow the policy."""


class Rollout(Strict):
    """How changes that make nodes more aggressive reach them; what makes them safer goes to all at once."""

    max_nodes_per_interval: NodesOrPercent = "10%"
    """Nodes that may be told within one interval, as a number or a percentage, at least one; the rollout stops while
    one of them fails or has an open breaker. Default 10%. nova: each host has its own configuration."""

    def most(self, nodes: int) -> int:
        """How many of `nodes` may be told within one interval; at least one."""
        given = self.max_nodes_per_interval
        text = str(given)
        if text.endswith("%"):
            return max(1, nodes * int(text[:-1]) // _PERCENT)
        return int(text)


class PolicySpec(NodeSettings):
    """What the operator wants."""

    node_selector: Annotated[Omittable[LabelSelector], Field(json_schema_extra=omitted)] = None
    """The nodes that this policy is for, by their labels. Default: every node that runs an agent.
    nova: each host has its own configuration."""
    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] = 0
    """Where several policies match a node the higher priority wins, then the older policy, then the first name.
    Default 0. nova: has no such option."""
    rollout: Rollout = Rollout()
    """How changes that make nodes more aggressive reach them; safer ones go to all at once. Default: as its
    fields say. nova: each host has its own configuration."""


class NodeState(StrEnum):
    """A node in a word, the worst first."""

    FAILING = "Failing"
    BREAKER_OPEN = "BreakerOpen"
    MISSING = "Missing"
    STALE = "Stale"
    PENDING = "Pending"
    WAITING = "Waiting"
    HOLDING = "Holding"
    CURRENT = "Current"


STATE_MEANING: dict[NodeState, str] = {
    NodeState.FAILING: "its last pass failed",
    NodeState.BREAKER_OPEN: "an anomaly stops removals on it",
    NodeState.MISSING: "an agent runs on it and has never reported",
    NodeState.STALE: "it has not reported for two hours",
    NodeState.PENDING: "it has been told and has not reported a pass under this generation yet",
    NodeState.WAITING: "it waits for its wave of a rollout; what makes it safer it has been told already",
    NodeState.HOLDING: "something that would go is held on it",
    NodeState.CURRENT: "its last pass ran under this generation, and nothing is held",
}
"""What each state means; `docs/conditions.md` shows it."""


class NodeCounts(Strict):
    """Nodes that follow the policy, counted."""

    matched: Count = 0
    """Nodes with an agent that follow the policy."""
    current: Count = 0
    """Of these: the last pass ran under this generation."""
    reporting: Count = 0
    """Of these: have reported within two hours."""
    stale: Count = 0
    """Of these: have reported, but not within two hours."""
    missing: Count = 0
    """Of these: have never reported, although an agent runs there."""
    holding: Count = 0
    """Of these: hold something that would go."""
    failing: Count = 0
    """Of these: the last pass failed, or the breaker is open."""
    waiting: Count = 0
    """Of these: wait for their wave of a rollout."""
    overridden: Count = 0
    """Nodes that the selector matches but that follow another policy."""


class Totals(Strict):
    """Sums over the nodes that follow the policy, as last reported."""

    cache_bytes: Bytes = 0
    """Bytes that the caches take up."""
    cache_files: Count = 0
    """Files in the caches."""
    reclaimable_bytes: Bytes = 0
    """Bytes that may go now; in Audit: that Enforce would free."""
    quarantined_bytes: Bytes = 0
    """Bytes that wait in the quarantines."""
    quarantined_files: Count = 0
    """Files that wait in the quarantines."""
    reclaimed_bytes: Bytes = 0
    """Bytes that purges have freed since the agents' ledgers began."""
    corrupt_files: Count = 0
    """Bases in the caches whose content is not that of their baseline."""


class NodeRow(Strict):
    """One node in short; `kubectl get nodeimagecache NODE -o yaml` has the rest."""

    node: NodeName
    """The node's name."""
    state: Annotated[NodeState, Field(strict=False)]
    """The node in a word."""
    mode: Annotated[Omittable[Annotated[Mode, Field(strict=False)]], Field(json_schema_extra=omitted)] = None
    """The mode that it has been told."""
    outcome: Annotated[Omittable[Annotated[str, Field(max_length=64)]], Field(json_schema_extra=omitted)] = None
    """How its last pass ended."""
    last_pass_time: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When that was."""
    cache_bytes: Bytes = 0
    """Bytes that its cache takes up."""
    reclaimable_bytes: Bytes = 0
    """Bytes that may go there now."""
    quarantined_bytes: Bytes = 0
    """Bytes that wait in its quarantine."""
    reclaimed_bytes: Bytes = 0
    """Bytes that purges have freed there."""
    held_files: Count = 0
    """Files that would go but for something that holds them."""
    message: Annotated[Omittable[Annotated[str, Field(max_length=512)]], Field(json_schema_extra=omitted)] = None
    """What is the matter, where something is."""


class DisagreementKind(StrEnum):
    """What it means that nodes keep different content under one name, the weightiest first."""

    SUSPECT = "Suspect"
    UNDECIDED = "Undecided"
    VARIANTS = "Variants"


DISAGREEMENT_MEANING: dict[DisagreementKind, str] = {
    DisagreementKind.SUSPECT: "one node alone has this content, and at least two others agree on another of the same "
    "size: its base is probably damaged, or was not the image's from the beginning",
    DisagreementKind.UNDECIDED: "no two nodes of the same size agree, so that nothing says whose base is right",
    DisagreementKind.VARIANTS: "the sizes differ, or several nodes agree on each content: other conversions of the "
    "image, which is no damage",
}
"""What each kind means; `docs/conditions.md` shows it."""


class DisagreementRow(Strict):
    """One base of which not all nodes have the same content."""

    name: Annotated[str, Field(max_length=64)]
    """The file's name."""
    kind: Annotated[DisagreementKind, Field(strict=False)]
    """What that means: Suspect, Undecided or Variants."""
    suspects: Annotated[tuple[NodeName, ...], Field(strict=False, max_length=MAX_SUSPECTS)] = ()
    """Nodes that stand alone against at least two copies that agree, at most 8."""
    undecided: Annotated[tuple[NodeName, ...], Field(strict=False, max_length=MAX_SUSPECTS)] = ()
    """Nodes that stand against each other, of which no two of one size agree, at most 8."""
    agreeing: Count = 0
    """Copies that agree against the suspects; where there are none, copies of the content that most nodes have. Nodes
    that share their storage have one copy."""
    variants: Count = 0
    """How many different contents there are."""


class PolicyStatus(Strict):
    """What became of the policy; written by the controller alone."""

    observed_generation: Annotated[Omittable[Annotated[int, Field(ge=0)]], Field(json_schema_extra=omitted)] = None
    """The generation of the policy that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(strict=False, max_length=16)] = ()
    """Ready, Enforcing, Degraded, RollingOut, Overridden and CachesAgree."""
    nodes: NodeCounts = NodeCounts()
    """Nodes, counted."""
    totals: Totals = Totals()
    """Sums over the nodes."""
    reclaimable: Annotated[str, Field(max_length=32)] = "0 B"
    """totals.reclaimableBytes for people."""
    node_statuses: Annotated[tuple[NodeRow, ...], Field(strict=False, max_length=MAX_ROWS)] = ()
    """A row for each node, those in trouble first, at most 500."""
    truncated: bool = False
    """Whether there are more nodes than rows."""
    disagreements: Annotated[tuple[DisagreementRow, ...], Field(strict=False, max_length=MAX_DISAGREEMENTS)] = ()
    """Bases of which not all nodes of the cluster have the same content, the weightiest first, at most 16; those alone
    that concern nodes of this policy: its suspects, and variants of what its nodes have."""


class Metadata(Strict):
    """The part of an object's metadata that is read; the API server's other keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    name: ObjectName
    """The policy's name."""


class ImageCachePolicy(Strict):
    """What an operator wants done with nova's image caches on a set of nodes, and what became of it."""

    api_version: Literal["basekeeper.io/v1alpha1"]
    """basekeeper.io/v1alpha1."""
    kind: Literal["ImageCachePolicy"]
    """ImageCachePolicy."""
    metadata: Metadata
    """The object's metadata."""
    spec: PolicySpec
    """What the operator wants."""

    @model_validator(mode="after")
    def _can_act(self) -> "ImageCachePolicy":
        if self.spec.quarantine.drain is not None and self.spec.mode is not Mode.ENFORCE:
            raise ValueError("spec.quarantine.drain: takes mode: Enforce; in Audit nothing is purged or put back")
        if self.spec.quarantine.drain is Drain.PURGE and self.spec.suspend:
            raise ValueError("spec.quarantine.drain: Purge never acts with suspend: true; remove one of them")
        ages = self.spec.minimum_age
        if ages.never_used is not None and ages.never_used < ages.original:
            raise ValueError(f"spec.minimumAge.neverUsed: {node_settings.NEVER_USED_RULE}")
        sharing = self.spec.shared_storage
        if sharing.retired_hosts and sharing.mode is not SharedStorageMode.COORDINATE:
            raise ValueError(f"spec.sharedStorage.retiredHosts: {node_settings.RETIRED_HOSTS_RULE}")
        return self


def to_engine(manifest: ImageCachePolicy, node: str) -> settings.Policy:
    """The engine's settings for `node`: the policy without the rows that are about other nodes."""
    return node_settings.to_engine(manifest.spec, manifest.metadata.name, node)
