"""What a node is told: the settings that an `ImageCachePolicy` gives and a `NodeImageCache` carries.

Every field has a reader in this release. Floors (an interval of at least a minute, ages of at least ten) are the
cluster's validation and not these models': the engine takes any duration, so that it can be tried in seconds.
"""

import re
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from basekeeper.cache import settings
from basekeeper.cache.settings import Algorithm, CachedOnly, Drain, Mode, SharedStorageMode
from basekeeper.cache.trips import TRIP_PATTERN

from .fields import (
    Duration,
    HostName,
    ImageId,
    NodeName,
    Omittable,
    PathText,
    Size,
    Strict,
    Text,
    Timestamp,
    cel,
    duration_default,
    omitted,
)
from .maintenance_window import MAX_WINDOWS, MaintenanceWindow
from .quantities import shown

_AGES = settings.MinimumAge()
_LIMITS = settings.Limits()
_POLICY = settings.Policy()
_PRESSURE = settings.Pressure()
_INTEGRITY = settings.Integrity()
_LEAST_AGE = "10m"
_LEAST_INTERVAL = "1m"
_LEAST_VERIFICATION = "1h"
RETIRED_HOSTS_RULE = "takes sharedStorage.mode: Coordinate; with Refuse no host is asked"
NEVER_USED_RULE = "expected a duration no shorter than minimumAge.original, or none"


class MinimumAge(Strict):
    """How long a file must have been unused before it may go, by what the file is."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.neverUsed) || !has(self.original) || duration(self.neverUsed) >= duration(self.original)",
                NEVER_USED_RULE,
                ".neverUsed",
            )
        )
    )

    original: Duration = duration_default(_AGES.original, least=_LEAST_AGE)
    """An image's base, as downloaded: how long unused before it may go, a duration of at least 10m. Default 24h.
    nova: [image_cache] remove_unused_original_minimum_age_seconds."""
    resized: Duration = duration_default(_AGES.resized, least=_LEAST_AGE)
    """A resized copy of a base, which only very old nova releases make: a duration of at least 10m. Default 1h.
    nova: [image_cache] remove_unused_resized_minimum_age_seconds."""
    swap: Duration = duration_default(_AGES.swap, least=_LEAST_AGE)
    """A base of swap disks: a duration of at least 10m. Default 24h. nova: the age of originals."""
    ephemeral: Duration = duration_default(_AGES.ephemeral, least=_LEAST_AGE)
    """A base of ephemeral disks: a duration of at least 10m. Default 24h. nova: the age of originals."""
    partial: Duration = duration_default(_AGES.partial, least=_LEAST_AGE)
    """A leftover of an interrupted download or conversion: a duration of at least 10m. Default 24h.
    nova: never removes them."""
    never_used: Annotated[Omittable[Duration], Field(json_schema_extra=omitted)] = _AGES.never_used
    """An image's base that basekeeper has never seen in use, as nova's image pre-caching leaves it: a duration no
    shorter than `original`. Default: that of `original`. nova: the age of originals."""


class Limits(Strict):
    """How much one pass may remove; kinds of files share it, and the rest waits for the next one."""

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
    """How long a removed file can still be put back before its space is freed, a duration. Default 6h; 0s frees
    it in the pass that removes it. nova: removes at once."""
    drain: Annotated[Omittable[Annotated[Drain, Field(strict=False)]], Field(json_schema_extra=omitted)] = _POLICY.drain
    """Empty the quarantine of every node, before an uninstall, and remove nothing meanwhile: Restore puts the files
    back, Purge frees their space. Takes mode: Enforce. status.totals.quarantinedBytes says when it is done.
    Default: leave it. nova: has no quarantine."""


class Pressure(Strict):
    """When unused files go before their own age, because the cache's file system is full."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                (
                    f"(has(self.lowPercent) ? self.lowPercent : {_PRESSURE.low_percent})"
                    f" < (has(self.highPercent) ? self.highPercent : {_PRESSURE.high_percent})"
                ),
                "expected less than highPercent",
                ".lowPercent",
            )
        )
    )

    high_percent: Annotated[int, Field(ge=1, le=100)] = _PRESSURE.high_percent
    """How full the file system may be, as df has it: used / (used + available). Above this percentage unused files go,
    the least recently used first. Default 85. nova: has no such option."""
    low_percent: Annotated[int, Field(ge=1, le=100)] = _PRESSURE.low_percent
    """How full it is when that ends; less than highPercent. Default 75. nova: has no such option."""
    minimum_age: Duration = duration_default(_PRESSURE.minimum_age, least=_LEAST_AGE)
    """How long a file must have been unused to go for want of room, where that is less than its own minimumAge: a
    duration of at least 10m. Default 1h. nova: has no such option."""
    ignore_windows: bool = _PRESSURE.ignore_windows
    """Whether files may go for want of room outside of maintenance windows too. Default false.
    nova: has no such option."""

    @model_validator(mode="after")
    def _low_is_lower(self) -> "Pressure":
        if self.low_percent >= self.high_percent:
            raise ValueError(f"expected lowPercent below highPercent, got {self.low_percent} and {self.high_percent}")
        return self


class Integrity(Strict):
    """How bases are read again and again, to see whether they are what they were."""

    interval: Duration = duration_default(_INTEGRITY.interval, least=_LEAST_VERIFICATION)
    """Within which time each base is read once, one after the other: a duration of at least 1h. Default 168h.
    nova: until Stein [libvirt] checksum_interval_seconds."""
    max_bytes_per_second: Annotated[Size, Field(json_schema_extra={"default": "50Mi"})] = (
        _INTEGRITY.max_bytes_per_second
    )
    """How much a node may read for that in a second, as a quantity. Default 50Mi. nova: had no limit."""
    algorithm: Annotated[Algorithm, Field(strict=False)] = _INTEGRITY.algorithm
    """What digests are made with: XXH3 finds every damage and is as fast as memory, SHA256 also what somebody changed
    so that it should not be found. A new one takes effect as each base is verified. Default XXH3. nova: had SHA-1."""


class SharedStorage(Strict):
    """What to do when other hosts use the same instances directory."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.retiredHosts) || self.retiredHosts == [] || (has(self.mode) && self.mode == 'Coordinate')",
                RETIRED_HOSTS_RULE,
                ".retiredHosts",
            )
        )
    )

    mode: Annotated[SharedStorageMode, Field(strict=False)] = _POLICY.shared_storage
    """Refuse: remove nothing while other hosts use the storage. Coordinate: the hosts publish on the storage what they
    need, and one of them removes what none needs, while all answer. Default Refuse. nova: trusts the file
    compute_nodes."""
    retired_hosts: Annotated[tuple[HostName, ...], Field(strict=False, max_length=256)] = ()
    """Hosts that are gone for good, by nova's names as holds tell them, at most 256: their silence holds nothing any
    more, a new sign of life of one does. Takes mode: Coordinate. Default: none. nova: forgets a host after 24 hours."""


_TRIP = {"type": "string", "pattern": TRIP_PATTERN, "maxLength": 64}


def _read_trip(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(TRIP_PATTERN, value):
        example = "UsersVanished-20261124T101500Z"
        raise ValueError(f"expected the name of a trip as status.breaker.trip has it, {example}, got {shown(value)}")
    return value


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


class ResetTrip(Strict):
    """An operator's word that ends one trip of one node's breaker."""

    node: NodeName
    """The node."""
    trip: Annotated[str, BeforeValidator(_read_trip), WithJsonSchema(_TRIP)]
    """The trip's name, as the node's status.breaker.trip has it."""


class NodeSettings(Strict):
    """The settings that an agent acts by."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            (
                "!has(self.quarantine) || !has(self.quarantine.drain) || !has(self.mode) || self.mode == 'Enforce'",
                "takes mode: Enforce; in Audit nothing is purged or put back that nothing needs",
                ".quarantine.drain",
            ),
            (
                (
                    "!has(self.quarantine) || !has(self.quarantine.drain) || self.quarantine.drain != 'Purge'"
                    " || !has(self.suspend) || !self.suspend"
                ),
                "Purge never acts with suspend: true; remove one of them",
                ".quarantine.drain",
            ),
        )
    )

    mode: Annotated[Mode, Field(strict=False)]
    """Audit decides and reports, and removes nothing; Enforce removes. Required.
    nova: [image_cache] remove_unused_base_images."""
    suspend: bool = _POLICY.suspend
    """Whether to stop removals and purges for now; observing, reporting and restoring go on. Default false.
    nova: has no such option."""
    interval: Duration = duration_default(40 * settings.MINUTE, least=_LEAST_INTERVAL)
    """Time between passes, a duration of at least 1m. Default 40m. nova: [image_cache] manager_interval."""
    minimum_age: MinimumAge = MinimumAge()
    """How long files must have been unused before they may go, by what each is. Default: as its fields say.
    nova: [image_cache] remove_unused_original_minimum_age_seconds and ..._resized_..."""
    cached_only: Annotated[CachedOnly, Field(strict=False)] = _POLICY.cached_only
    """Keep or Remove bases that no disk needs but that an instance on this node was made from (raw and flat
    disks). Default Keep. nova: keeps them."""
    pinned_images: Annotated[tuple[ImageId, ...], Field(strict=False, max_length=256)] = ()
    """UUIDs of images whose bases are never removed, at most 256. Default: none. nova: has no such option."""
    limits: Limits = Limits()
    """How much one pass may remove; the kinds of files that have something to go share it, the longest unused of each
    go first, the rest waits for the next pass. Default: as its fields say. nova: no limit."""
    quarantine: Quarantine = Quarantine()
    """How removed files wait, in case something needs them after all. Default: as its fields say.
    nova: removes at once."""
    pressure: Annotated[Omittable[Pressure], Field(json_schema_extra=omitted)] = None
    """What to do when the cache's file system is full. Default: nothing. nova: has no such option."""
    max_cache_bytes: Annotated[Omittable[Size], Field(json_schema_extra=omitted)] = _POLICY.max_cache_bytes
    """What the cache and its quarantine may take up together, as a quantity such as 200Gi; above that unused files go
    as under pressure, by pressure.minimumAge. Default: no limit. nova: has no such option."""
    integrity: Annotated[Omittable[Integrity], Field(json_schema_extra=omitted)] = None
    """How bases are verified; one that changed goes when nothing uses it, whatever its age, and is reported where
    something does. Default: nothing is verified. nova: until Stein [libvirt] checksum_base_images."""
    acknowledged: Annotated[tuple[Acknowledged, ...], Field(strict=False, max_length=256)] = ()
    """Paths that cannot be read, hold removals and are known to be harmless, at most 256. Void when the file
    changes; never waives a reference that can be read. Default: none. nova: has no such option."""
    shared_storage: SharedStorage = SharedStorage()
    """How to behave when other hosts use the same instances directory. Default: as its fields say.
    nova: trusts the file compute_nodes."""
    reset_trips: Annotated[tuple[ResetTrip, ...], Field(strict=False, max_length=64)] = ()
    """Trips of nodes' breakers that end on your word, at most 64: each by its node and its name, so that it ends no
    other, nor the same anomaly when it comes again. Reaches its node at once. Default: none. nova: has no breaker."""
    touch_in_use: bool = _POLICY.touch_in_use
    """Whether each pass in Enforce, suspended or not, gives a fresh time stamp to bases in use whose own is older than
    a quarter of the age at which nova removes: for a nova manager that still removes. Default false.
    nova: touches what its database knows."""
    maintenance_windows: Annotated[tuple[MaintenanceWindow, ...], Field(strict=False, max_length=MAX_WINDOWS)] = ()
    """When removals, purges and verification may run, at most 16 windows; observing, reporting and restoring always go
    on. Default: none, which is always. nova: has no such option."""


def to_engine(given: NodeSettings, name: str, node: str) -> settings.Policy:
    """The engine's settings for `node` under the policy `name`, without the rows that are about other nodes."""
    return settings.Policy(
        name=name,
        mode=given.mode,
        suspend=given.suspend,
        minimum_age=settings.MinimumAge(**given.minimum_age.__dict__),
        cached_only=given.cached_only,
        # nova hashes the id as glance gives it, which is in lower case unless somebody chose the id: pin both.
        pinned_images=frozenset(form for image in given.pinned_images for form in (image, image.lower())),
        limits=settings.Limits(
            max_files=given.limits.max_files, max_bytes=given.limits.max_bytes, max_percent=given.limits.max_percent
        ),
        retention=given.quarantine.retention,
        drain=given.quarantine.drain,
        pressure=None if given.pressure is None else settings.Pressure(**given.pressure.__dict__),
        max_cache_bytes=given.max_cache_bytes,
        integrity=None if given.integrity is None else settings.Integrity(**given.integrity.__dict__),
        acknowledged=tuple(
            settings.AcknowledgedPath(row.path, row.reason, row.until.timestamp() if row.until else None)
            for row in given.acknowledged
            if row.node in (None, node)
        ),
        shared_storage=given.shared_storage.mode,
        reset_trips=frozenset(row.trip for row in given.reset_trips if row.node == node),
        retired_hosts=frozenset(host.lower() for host in given.shared_storage.retired_hosts),
        interval=given.interval,
        touch_in_use=given.touch_in_use,
        windows=tuple(window.to_engine() for window in given.maintenance_windows),
    )
