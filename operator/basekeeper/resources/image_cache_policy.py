"""`ImageCachePolicy`: what an operator wants done with the image caches of a set of nodes.

Every field has a reader in this release; a field whose function comes later is not here, and `LATER` names it
so that the error can say so. Floors (an interval of at least a minute, ages of at least ten) are the cluster's
validation and not this model's: the engine takes any duration, so that it can be tried in seconds.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from basekeeper.cache import settings
from basekeeper.cache.settings import CachedOnly, Mode, SharedStorageMode

from .fields import (
    Duration,
    ImageId,
    LabelKey,
    LabelValue,
    NodeName,
    ObjectName,
    Omittable,
    PathText,
    Size,
    Strict,
    Text,
    Timestamp,
    duration_default,
    omitted,
)

API_VERSION = "basekeeper.io/v1alpha1"
KIND = "ImageCachePolicy"

LATER = frozenset(
    {
        "spec.pressure",
        "spec.maxCacheBytes",
        "spec.rollout",
        "spec.touchInUse",
        "spec.integrity",
        "spec.maintenanceWindows",
        "spec.quarantine.drain",
        "spec.sharedStorage.retiredHosts",
    }
)
"""Fields that the design names and that arrive with their function."""

_AGES = settings.MinimumAge()
_LIMITS = settings.Limits()
_POLICY = settings.Policy()


class LabelOperator(StrEnum):
    """How a label expression compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelExpression(Strict):
    """One condition on a node's labels."""

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


class MinimumAge(Strict):
    """How long a file must have been unused before it may go, by what the file is."""

    original: Duration = duration_default(_AGES.original)
    """An image's base, as downloaded. Default 24h.
    nova: [image_cache] remove_unused_original_minimum_age_seconds."""
    resized: Duration = duration_default(_AGES.resized)
    """A resized copy of a base; only very old nova releases make them. Default 1h.
    nova: [image_cache] remove_unused_resized_minimum_age_seconds."""
    swap: Duration = duration_default(_AGES.swap)
    """A base of swap disks. Default 24h. nova: the age of originals."""
    ephemeral: Duration = duration_default(_AGES.ephemeral)
    """A base of ephemeral disks. Default 24h. nova: the age of originals."""
    partial: Duration = duration_default(_AGES.partial)
    """A leftover of an interrupted download or conversion. Default 24h. nova: never removes them."""


class Limits(Strict):
    """How much one pass may remove; the rest waits for the next one, oldest unused first."""

    max_files: Annotated[int, Field(ge=1, le=1_000_000)] = _LIMITS.max_files
    """Files that one pass may remove. Default 20. nova: no limit."""
    max_bytes: Annotated[Omittable[Size], Field(json_schema_extra=omitted)] = _LIMITS.max_bytes
    """Bytes that one pass may remove, as a quantity such as 100Gi; one file may always go.
    Default: no limit. nova: no limit."""
    max_percent: Annotated[int, Field(ge=1, le=100)] = _LIMITS.max_percent
    """Percentage of the cache's files that one pass may remove; one file may always go. Default 25.
    nova: no limit."""


class Quarantine(Strict):
    """Where removed files wait, in case something needs them after all."""

    retention: Duration = duration_default(_POLICY.retention)
    """How long a removed file can still be put back before its space is freed. Default 6h; 0s frees it in
    the pass that removes it. nova: removes at once."""


class SharedStorage(Strict):
    """What to do when other hosts use the same instances directory."""

    mode: Annotated[SharedStorageMode, Field(strict=False)] = _POLICY.shared_storage
    """Refuse: remove nothing while other hosts use the storage. Default Refuse.
    nova: trusts the file compute_nodes."""


class Acknowledged(Strict):
    """An operator's word that something which cannot be read is known to be harmless."""

    node: Annotated[Omittable[NodeName], Field(json_schema_extra=omitted)] = None
    """The node that this is about. Default: every node of the policy."""
    path: PathText
    """The path that a hold names: relative to the instances path where it lies under it, or absolute."""
    reason: Text
    """Why it is harmless, for whoever reads this next."""
    until: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When this ends, as 2026-12-31T00:00:00Z. Default: when the file changes."""


class PolicySpec(Strict):
    """What the operator wants."""

    node_selector: Annotated[Omittable[LabelSelector], Field(json_schema_extra=omitted)] = None
    """The nodes that this policy is for. Default: every node that runs an agent."""
    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] = 0
    """Where several policies match a node the higher priority wins, then the older policy. Default 0."""
    mode: Annotated[Mode, Field(strict=False)]
    """Audit decides and reports, and removes nothing; Enforce removes. Required.
    nova: [image_cache] remove_unused_base_images."""
    suspend: bool = _POLICY.suspend
    """Whether to stop removals and purges for now; observing, reporting and restoring go on. Default false."""
    interval: Duration = duration_default(40 * settings.MINUTE)
    """Time between passes. Default 40m. nova: [image_cache] manager_interval."""
    minimum_age: MinimumAge = MinimumAge()
    """How long a file must have been unused before it may go."""
    cached_only: Annotated[CachedOnly, Field(strict=False)] = _POLICY.cached_only
    """Keep or Remove bases that no disk needs but that an instance on this node was made from (raw and flat
    disks). Default Keep. nova: keeps them."""
    pinned_images: Annotated[tuple[ImageId, ...], Field(strict=False, max_length=256)] = ()
    """UUIDs of images whose bases are never removed, at most 256. Default: none. nova: has no such option."""
    limits: Limits = Limits()
    """How much one pass may remove."""
    quarantine: Quarantine = Quarantine()
    """How removed files wait, in case something needs them after all."""
    acknowledged: Annotated[tuple[Acknowledged, ...], Field(strict=False, max_length=256)] = ()
    """Paths that cannot be read, hold removals and are known to be harmless, at most 256. Void when the file
    changes; never waives a reference that can be read."""
    shared_storage: SharedStorage = SharedStorage()
    """How to behave when other hosts use the same instances directory."""


class Metadata(Strict):
    """The part of an object's metadata that is read; the API server's other keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    name: ObjectName
    """The policy's name."""


class ImageCachePolicy(Strict):
    """What an operator wants done with the image caches of a set of nodes."""

    api_version: Literal["basekeeper.io/v1alpha1"]
    """basekeeper.io/v1alpha1."""
    kind: Literal["ImageCachePolicy"]
    """ImageCachePolicy."""
    metadata: Metadata
    """The object's metadata."""
    spec: PolicySpec
    """What the operator wants."""


def to_engine(manifest: ImageCachePolicy, node: str) -> settings.Policy:
    """Return the engine's settings for `node`: the policy without the rows that are about other nodes."""
    spec = manifest.spec
    return settings.Policy(
        name=manifest.metadata.name,
        mode=spec.mode,
        suspend=spec.suspend,
        minimum_age=settings.MinimumAge(**spec.minimum_age.__dict__),
        cached_only=spec.cached_only,
        # nova hashes the id as glance gives it, which is in lower case unless somebody chose the id: pin both.
        pinned_images=frozenset(form for image in spec.pinned_images for form in (image, image.lower())),
        limits=settings.Limits(
            max_files=spec.limits.max_files, max_bytes=spec.limits.max_bytes, max_percent=spec.limits.max_percent
        ),
        retention=spec.quarantine.retention,
        acknowledged=tuple(
            settings.AcknowledgedPath(row.path, row.reason, row.until.timestamp() if row.until else None)
            for row in spec.acknowledged
            if row.node in (None, node)
        ),
        shared_storage=spec.shared_storage.mode,
    )
