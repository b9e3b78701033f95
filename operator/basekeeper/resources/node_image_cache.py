"""`NodeImageCache`: what one node is told, and what it tells. One for each node that runs an agent.

The spec is the controller's, the status that node's agent's; neither writes the other's. The status holds no name of
a tenant, an instance or an image, because every agent may read every node's object; paths of holds lie under the
instances path.
"""

from typing import Annotated

from pydantic import ConfigDict, Field

from basekeeper.cache.names import Kind
from basekeeper.cache.pressure import PressureState
from basekeeper.cache.report import Outcome
from basekeeper.cache.settings import Mode
from basekeeper.cache.verdicts import Reason, Verdict
from basekeeper.cache.wholeness import Flaw

from .conditions import Condition
from .fields import Bytes, Count, ImageId, NodeName, ObjectName, Omittable, Strict, Timestamp, omitted
from .node_settings import NodeSettings

KIND = "NodeImageCache"
MAX_FILES = 32
"""Entries of `status.files`."""
MAX_FINDINGS = 5
"""Entries of `status.integrity.findings`."""
MAX_DIGESTS = 64
"""Entries of `status.integrity.digests`."""
MAX_HOLDS = 16
"""Entries of `status.holds`."""
MAX_SHARERS = 8
"""Entries of `spec.sharedStorageWith`."""


class Origin(Strict):
    """The policy that the settings come from."""

    name: ObjectName
    """Its name."""
    uid: Annotated[str, Field(max_length=64)]
    """Its uid."""
    generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
    """Its generation; with `rollout.waiting` not all of its settings are here yet."""


class NodeRollout(Strict):
    """Where the node stands in the rollout of its policy."""

    moved_at: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When a wave last made the node more aggressive."""
    generation: Annotated[Omittable[Annotated[int, Field(ge=0)]], Field(json_schema_extra=omitted)] = None
    """The policy's generation that it did that with."""
    waiting: bool = False
    """Whether the policy has newer settings, of which only what makes the node safer is in here yet."""


class NodeSpec(NodeSettings):
    """What the node is told; empty where no policy selects it."""

    mode: Annotated[Omittable[Annotated[Mode, Field(strict=False)]], Field(json_schema_extra=omitted)] = None  # type: ignore[assignment]
    """Audit decides and reports, and removes nothing; Enforce removes. Absent: no policy selects the node."""
    pinned_images: Annotated[tuple[ImageId, ...], Field(strict=False, max_length=512)] = ()
    """UUIDs of images whose bases are never removed; while a rollout waits, those of the settings before as well."""
    policy: Annotated[Omittable[Origin], Field(json_schema_extra=omitted)] = None
    """The policy that the settings come from. Absent: no policy selects the node."""
    rollout: Annotated[Omittable[NodeRollout], Field(json_schema_extra=omitted)] = None
    """Where the node stands in the rollout of its policy."""
    shared_storage_with: Annotated[tuple[NodeName, ...], Field(strict=False, max_length=MAX_SHARERS)] = ()
    """Nodes that report the same fileSystem.identity, at most 8: the node takes its storage for shared with them."""


class PassReport(Strict):
    """The last pass."""

    time: Timestamp
    """When its evidence was judged."""
    mode: Annotated[Mode, Field(strict=False)]
    """The mode that it ran in."""
    outcome: Annotated[Outcome, Field(strict=False)]
    """The weightiest of what happened: Failed, Acted, Planned (would act in Enforce), Held or Clean."""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """How long it took."""
    kept: dict[str, Count] = Field(default_factory=dict, max_length=64)
    """Files that stay, by reason."""
    held: dict[str, Count] = Field(default_factory=dict, max_length=64)
    """Files that would go but are held, by reason."""
    removed: Count = 0
    """Files that it moved into the quarantine, those that it purged at once included."""
    removed_bytes: Bytes = 0
    """Their bytes."""
    restored: Count = 0
    """Files that it put back because something needs them."""
    purged: Count = 0
    """Files that it purged."""
    purged_bytes: Bytes = 0
    """The bytes that this freed."""
    failed: Count = 0
    """Files with which something went wrong."""
    error: Annotated[Omittable[Annotated[str, Field(max_length=1024)]], Field(json_schema_extra=omitted)] = None
    """Why it failed as a whole."""


class CacheReport(Strict):
    """The cache after the last pass."""

    files: Count = 0
    """Files in it, those that are not nova's included."""
    bytes: Bytes = 0
    """Bytes that they take up."""
    reclaimable_files: Count = 0
    """Files that may go, those included that wait because of `limits`; in Audit: that Enforce would remove."""
    reclaimable_bytes: Bytes = 0
    """Their bytes."""
    quarantined_files: Count = 0
    """Files that wait in the quarantine."""
    quarantined_bytes: Bytes = 0
    """Their bytes."""
    reclaimed_bytes: Bytes = 0
    """Bytes that purges have freed since the ledger began."""


class FileSystemReport(Strict):
    """The file system that the cache lies on."""

    type: Annotated[str, Field(max_length=64)] = ""
    """Its type, as the kernel calls it."""
    size_bytes: Bytes = 0
    """Its size."""
    available_bytes: Bytes = 0
    """What an ordinary user may still write; told anew when it changed by a hundredth of the size."""
    identity: Annotated[Omittable[Annotated[str, Field(max_length=64)]], Field(json_schema_extra=omitted)] = None
    """Which directories these are: two parts, for the instances path and the cache, of which one that is equal on two
    nodes says that both see the same directory. Absent where nothing tells, as before the first pass that acts."""


class PressureReport(Strict):
    """How the cache and its file system stand to `spec.pressure` and `spec.maxCacheBytes`."""

    state: Annotated[PressureState, Field(strict=False)]
    """Below, Pressure, OverBudget or PressureNotOurs."""
    used_percent: Annotated[Omittable[Annotated[int, Field(ge=0, le=100)]], Field(json_schema_extra=omitted)] = None
    """How full the file system is, as df has it, rounded up."""
    target_bytes: Bytes = 0
    """Bytes that must go, those included that are going already."""
    evictable_bytes: Bytes = 0
    """Bytes that may go for it: what goes anyway, what waits in the quarantine, and unused files."""


class FindingReport(Strict):
    """A base with which something is wrong."""

    name: Annotated[str, Field(max_length=1024)]
    """Its name."""
    kind: Annotated[Flaw, Field(strict=False)]
    """Corrupt: its content is not that of its baseline. Unreadable: nobody knows whether it is."""
    in_use: bool = False
    """Whether something uses it."""
    offset: Annotated[Omittable[Bytes], Field(json_schema_extra=omitted)] = None
    """Where in the file the first damage is, in bytes; of a block of 4 MiB its beginning."""
    time: Timestamp
    """When it was found."""


class IntegrityReport(Strict):
    """What is known of the content of the bases in the cache."""

    verified_files: Count = 0
    """Bases found whole within two intervals."""
    baselined_files: Count = 0
    """Bases that have a baseline to be compared with."""
    pending_files: Count = 0
    """Bases that have none yet."""
    corrupt_files: Count = 0
    """Bases whose content is not that of their baseline."""
    corrupt_in_use: Count = 0
    """Those of them that something uses."""
    unreadable_files: Count = 0
    """Bases that could not be read."""
    oldest_verified_time: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When the least recently verified of those with a baseline was verified."""
    findings: Annotated[tuple[FindingReport, ...], Field(strict=False, max_length=MAX_FINDINGS)] = ()
    """What is wrong, the latest first, at most 5; `basekeeper explain` in the agent's pod has all places."""
    digests: dict[str, Annotated[str, Field(max_length=80)]] = Field(default_factory=dict, max_length=MAX_DIGESTS)
    """<ALGORITHM>:<size>:<digest> of originals that are whole, by name, at most 64 and as many as fit: what the
    controller compares across nodes."""


class OrphansReport(Strict):
    """Instance directories without a domain that nothing has changed for a day; `basekeeper orphans` names them."""

    directories: Count = 0
    """How many there are."""
    bytes: Bytes = 0
    """Bytes that they take up."""
    alone_bytes: Bytes = 0
    """Bytes of the bases that nothing but they need."""
    oldest: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When the one that has been there for longest was last changed."""


class Paths(Strict):
    """Where the agent looks."""

    instances: Annotated[str, Field(max_length=4096)]
    """nova's instances directory."""
    base: Annotated[str, Field(max_length=4096)]
    """The cache of base images."""


class BreakerReport(Strict):
    """The weightiest anomaly that stops every removal."""

    trip: Annotated[str, Field(max_length=64)]
    """Its name, which `spec.resetTrips` of the policy takes."""
    cause: Annotated[Reason, Field(strict=False)]
    """Which anomaly it is."""
    since: Timestamp
    """When a pass first saw it."""
    message: Annotated[str, Field(max_length=1024)]
    """What was seen."""
    clears: Annotated[str, Field(max_length=1024)]
    """What ends it."""


class WindowReport(Strict):
    """Whether removals, purges and verification may run by the policy's maintenance windows."""

    open: bool
    """Whether a window was open when this was written."""
    until: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When it closes. Absent: none is open, or no end is in sight."""
    opens_at: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When the next one opens, if none is open."""


class HoldReport(Strict):
    """Something that holds removals or purges."""

    reason: Annotated[Reason, Field(strict=False)]
    """Why."""
    message: Annotated[str, Field(max_length=512)]
    """In a sentence."""
    path: Annotated[Omittable[Annotated[str, Field(max_length=1024)]], Field(json_schema_extra=omitted)] = None
    """What it is about, under the instances path: what `spec.acknowledged` takes."""


class FileReport(Strict):
    """One file of the cache."""

    name: Annotated[str, Field(max_length=1024)]
    """Its name; bytes that are no printable UTF-8 as \\xNN."""
    kind: Annotated[Kind, Field(strict=False)]
    """What it is."""
    verdict: Annotated[Verdict, Field(strict=False)]
    """What the last pass decided."""
    reason: Annotated[Reason, Field(strict=False)]
    """Why."""
    bytes: Bytes = 0
    """What removing it would free."""
    quarantined: bool = False
    """Whether it lies in the quarantine."""
    action: Annotated[Omittable[Annotated[str, Field(max_length=32)]], Field(json_schema_extra=omitted)] = None
    """What the last pass did with it."""
    unused_since: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """Since when nothing uses it."""
    removable_at: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When it is old enough to go."""


class NodeStatus(Strict):
    """What the node tells; written by its agent alone."""

    model_config = ConfigDict(extra="ignore")

    observed_generation: Annotated[Omittable[Annotated[int, Field(ge=0)]], Field(json_schema_extra=omitted)] = None
    """The generation of this object that the last pass ran under."""
    policy: Annotated[Omittable[Origin], Field(json_schema_extra=omitted)] = None
    """The policy that the last pass ran under."""
    heartbeat_time: Annotated[Omittable[Timestamp], Field(json_schema_extra=omitted)] = None
    """When this was written. It is written when it changed, and every half hour."""
    agent_version: Annotated[str, Field(max_length=64)] = ""
    """The agent's release."""
    conditions: Annotated[tuple[Condition, ...], Field(strict=False, max_length=16)] = ()
    """Ready, PolicyApplied, LibvirtReachable, SharedStorage, DiskPressure, IntegrityVerified, BreakerClosed, Holding,
    and the others of docs/conditions.md."""
    last_pass: Annotated[Omittable[PassReport], Field(json_schema_extra=omitted)] = None
    """The last pass."""
    cache: CacheReport = CacheReport()
    """The cache after it."""
    reclaimable: Annotated[str, Field(max_length=32)] = "0 B"
    """cache.reclaimableBytes for people."""
    file_system: Annotated[Omittable[FileSystemReport], Field(json_schema_extra=omitted)] = None
    """The file system that the cache lies on."""
    pressure: Annotated[Omittable[PressureReport], Field(json_schema_extra=omitted)] = None
    """How the cache and its file system stand to `spec.pressure` and `spec.maxCacheBytes`. Absent: it has neither."""
    integrity: Annotated[Omittable[IntegrityReport], Field(json_schema_extra=omitted)] = None
    """What is known of the content of the bases. Absent: nothing was ever verified, and nothing is to be."""
    orphans: Annotated[Omittable[OrphansReport], Field(json_schema_extra=omitted)] = None
    """Instance directories without a domain, counted. Absent: it is not known which directories have one."""
    paths: Annotated[Omittable[Paths], Field(json_schema_extra=omitted)] = None
    """Where the agent looks."""
    breaker: Annotated[Omittable[BreakerReport], Field(json_schema_extra=omitted)] = None
    """The weightiest anomaly, while one stops every removal. Absent: none does."""
    window: Annotated[Omittable[WindowReport], Field(json_schema_extra=omitted)] = None
    """Whether removals may run by the policy's maintenance windows. Absent: it has none."""
    holds: Annotated[tuple[HoldReport, ...], Field(strict=False, max_length=MAX_HOLDS)] = ()
    """What holds removals or purges, at most 16 and as many as fit."""
    holds_truncated: bool = False
    """Whether there is more that holds something; `basekeeper hold list` in the agent's pod shows all."""
    files: Annotated[tuple[FileReport, ...], Field(strict=False, max_length=MAX_FILES)] = ()
    """Files of the cache, the notable first, at most 32 and as many as fit; `basekeeper plan` in the agent's pod shows
    all."""
    files_truncated: bool = False
    """Whether there are more files than entries."""
