"""nova's options that touch the image cache, with every spelling that a release ever read.

The table was taken from nova's sources, release by release. A spelling is read by a range of releases; where
several are read, the first in the table wins, as in oslo.config. Options without a field in the policy carry a
note on what basekeeper does about them.
"""

from dataclasses import dataclass
from enum import Enum, auto

RELEASES = (
    "essex", "folsom", "grizzly", "havana", "icehouse", "juno", "kilo", "liberty", "mitaka", "newton", "ocata",
    "pike", "queens", "rocky", "stein", "train", "ussuri", "victoria", "wallaby", "xena", "yoga", "zed",
    "antelope", "bobcat", "caracal", "dalmatian", "epoxy", "flamingo", "gazpacho", "hibiscus",
)  # fmt: skip
"""nova's releases with an image cache manager, oldest first."""
CURRENT = RELEASES[-1]


def age(release: str) -> int:
    """Return the place of a release in history, to compare two."""
    return RELEASES.index(release)


class Kind(Enum):
    """How nova reads an option's value."""

    BOOL = auto()
    INT = auto()
    TEXT = auto()


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write an option, and the releases that read it; `since=None`: none ever did."""

    group: str
    name: str
    since: str | None = RELEASES[0]
    until: str = CURRENT

    def read_by(self, release: str) -> bool:
        """Return whether nova of this release reads the spelling."""
        return self.since is not None and age(self.since) <= age(release) <= age(self.until)

    def __str__(self) -> str:
        return f"[{self.group}] {self.name}"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of nova: its spellings, the preferred first, its type, default and bounds."""

    spellings: tuple[Spelling, ...]
    kind: Kind
    default: str | None
    """As it would stand in the file; None: nova finds it out at run time."""
    early_defaults: tuple[tuple[str, str], ...] = ()
    """(release, default) where a release had another."""
    minimum: int | None = None
    choices: tuple[str, ...] = ()
    note: str = ""
    """What basekeeper does about it, for options that no field of the policy stands for."""

    def default_in(self, release: str) -> str | None:
        """Return the default that the option had in a release."""
        return dict(self.early_defaults).get(release, self.default)

    def spelling_in(self, release: str) -> Spelling:
        """Return how to write it for a release; today's spelling if that release had no such option."""
        return next((spelling for spelling in self.spellings if spelling.read_by(release)), self.spellings[0])

    def __str__(self) -> str:
        return str(self.spellings[0])


def _option(group: str, name: str, kind: Kind, default: str | None, *older: Spelling, note: str = "") -> Option:
    return Option((Spelling(group, name), *older), kind, default, note=note)


_CACHE_SINCE = "ussuri"
_CHECKS = "spec.integrity is basekeeper's check of the files' content"
_ELSEWHERE = "not basekeeper's: it stays in nova.conf"
_NO_QEMU_IMG = "basekeeper runs no qemu-img to look at disks"
_RESCUE = "nova's cache manager does not know rescue images; basekeeper sees them in use by their disks"

MANAGER_INTERVAL = Option(
    (
        Spelling("image_cache", "manager_interval", since=_CACHE_SINCE),
        Spelling("DEFAULT", "image_cache_manager_interval"),
    ),
    Kind.INT,
    "2400",
    early_defaults=(("essex", "40"), ("folsom", "40")),
    minimum=-1,
)
REMOVE = Option(
    (
        Spelling("image_cache", "remove_unused_base_images", since=_CACHE_SINCE),
        Spelling("DEFAULT", "remove_unused_base_images"),
        Spelling("libvirt", "remove_unused_base_images", since="icehouse", until="icehouse"),
    ),
    Kind.BOOL,
    "true",
    early_defaults=(("essex", "false"),),
)
ORIGINAL_AGE = Option(
    (
        Spelling("image_cache", "remove_unused_original_minimum_age_seconds", since=_CACHE_SINCE),
        Spelling("DEFAULT", "remove_unused_original_minimum_age_seconds"),
        Spelling("libvirt", "remove_unused_original_minimum_age_seconds", since="icehouse", until="icehouse"),
        Spelling("DEFAULT", "remove_unused_minimum_age_seconds", since=None),
    ),
    Kind.INT,
    "86400",
)
RESIZED_AGE = Option(
    (
        Spelling("image_cache", "remove_unused_resized_minimum_age_seconds", since=_CACHE_SINCE),
        Spelling("libvirt", "remove_unused_resized_minimum_age_seconds", since="icehouse"),
        Spelling("DEFAULT", "remove_unused_resized_minimum_age_seconds", until="icehouse"),
    ),
    Kind.INT,
    "3600",
)
SUBDIRECTORY = Option(
    (
        Spelling("image_cache", "subdirectory_name", since=_CACHE_SINCE),
        Spelling("DEFAULT", "image_cache_subdirectory_name", since="icehouse"),
        Spelling("DEFAULT", "base_dir_name", until="icehouse"),
    ),
    Kind.TEXT,
    "_base",
)
STATE_PATH = _option("DEFAULT", "state_path", Kind.TEXT, "/var/lib/nova")
INSTANCES_PATH = _option("DEFAULT", "instances_path", Kind.TEXT, "$state_path/instances")
SNAPSHOTS = _option(
    "libvirt", "snapshots_directory", Kind.TEXT, "$instances_path/snapshots",
    Spelling("DEFAULT", "libvirt_snapshots_directory", until="icehouse"),
)  # fmt: skip
HOST = _option("DEFAULT", "host", Kind.TEXT, None)
USE_COW = _option("DEFAULT", "use_cow_images", Kind.BOOL, "true")
IMAGES_TYPE = Option(
    (Spelling("libvirt", "images_type"), Spelling("DEFAULT", "libvirt_images_type", until="icehouse")),
    Kind.TEXT,
    "default",
    choices=("raw", "flat", "qcow2", "lvm", "rbd", "ploop", "default"),
)
NO_LOCKING = _option("oslo_concurrency", "disable_process_locking", Kind.BOOL, "false")
PERIODIC = _option("DEFAULT", "periodic_enable", Kind.BOOL, "true")
EXTERNAL_PERIODIC = _option("DEFAULT", "run_external_periodic_tasks", Kind.BOOL, "true")
PERIODIC_INTERVAL = Option((Spelling("DEFAULT", "periodic_interval", until="folsom"),), Kind.INT, "60")
PRECACHE = _option(
    "image_cache", "precache_concurrency", Kind.INT, "1",
    note="precaching stays nova's; a precached base that nothing uses goes at its minimum age",
)  # fmt: skip
CHECKSUMS = Option(
    (
        Spelling("libvirt", "checksum_base_images", since="icehouse", until="stein"),
        Spelling("DEFAULT", "checksum_base_images", until="icehouse"),
    ),
    Kind.BOOL, "false", note=_CHECKS,
)  # fmt: skip
CHECKSUM_INTERVAL = Option(
    (
        Spelling("libvirt", "checksum_interval_seconds", since="icehouse", until="stein"),
        Spelling("DEFAULT", "checksum_interval_seconds", since="grizzly", until="icehouse"),
    ),
    Kind.INT, "3600", note=_CHECKS,
)  # fmt: skip

OPTIONS = (
    MANAGER_INTERVAL, REMOVE, ORIGINAL_AGE, RESIZED_AGE, SUBDIRECTORY, STATE_PATH, INSTANCES_PATH, SNAPSHOTS, HOST,
    USE_COW, IMAGES_TYPE, NO_LOCKING, PERIODIC, EXTERNAL_PERIODIC, PERIODIC_INTERVAL, PRECACHE,
    Option((Spelling("DEFAULT", "use_image_cache_manager", since=None),), Kind.BOOL, "false"),
    CHECKSUMS, CHECKSUM_INTERVAL,
    Option(
        (
            Spelling("libvirt", "image_info_filename_pattern", since="icehouse", until="stein"),
            Spelling("DEFAULT", "image_info_filename_pattern", since="folsom", until="icehouse"),
        ),
        Kind.TEXT, "$instances_path/$base_dir_name/%(image)s.info",
        note="basekeeper takes .info files in the cache for leftovers; elsewhere it does not see them",
    ),
    Option(
        (
            Spelling("libvirt", "remove_unused_kernels", since="icehouse", until="liberty"),
            Spelling("DEFAULT", "remove_unused_kernels", since="grizzly", until="icehouse"),
        ),
        Kind.BOOL, "false",
        note="basekeeper, like nova since Mitaka, treats kernels and ramdisks as any other base",
    ),
    _option("DEFAULT", "my_ip", Kind.TEXT, None),
    _option(
        "DEFAULT", "force_raw_images", Kind.BOOL, "true",
        note="bases may be qcow2; basekeeper reads a base only where its overlay declares it so",
    ),
    _option("DEFAULT", "default_ephemeral_format", Kind.TEXT, None, note="part of ephemeral names; all are known"),
    _option("DEFAULT", "virt_mkfs", Kind.TEXT, None, note="part of ephemeral names; all are known"),
    _option(
        "DEFAULT", "instance_name_template", Kind.TEXT, "instance-%08x",
        note="basekeeper looks into every instance directory, whatever its name",
    ),
    _option("libvirt", "images_cpu_time_limit", Kind.INT, "30", note=_NO_QEMU_IMG),
    _option("libvirt", "images_address_space_limit", Kind.INT, "2", note=_NO_QEMU_IMG),
    *(
        _option("libvirt", name, Kind.TEXT, None, Spelling("DEFAULT", name, until="icehouse"), note=_RESCUE)
        for name in ("rescue_image_id", "rescue_kernel_id", "rescue_ramdisk_id")
    ),
    _option("compute", "max_concurrent_disk_ops", Kind.INT, "0", note=_ELSEWHERE),
    _option(
        "workarounds", "reserve_disk_resource_for_image_cache", Kind.BOOL, "false",
        note="nova counts the quarantine with the cache until it is purged, so free space shows up later",
    ),
    _option("workarounds", "disable_deep_image_inspection", Kind.BOOL, "false", note=_ELSEWHERE),
    _option("workarounds", "never_download_image_if_on_rbd", Kind.BOOL, "false", note=_ELSEWHERE),
    _option(
        "oslo_concurrency", "lock_path", Kind.TEXT, None,
        note="nova's locks for the cache lie in <instances_path>/locks whatever it says",
    ),
    _option("DEFAULT", "periodic_fuzzy_delay", Kind.INT, "60", note="basekeeper spreads its passes by itself"),
    *(
        _option("DEFAULT", name, Kind.INT, "0", note="its instances keep their directories, and so their bases")
        for name in ("reclaim_instance_interval", "shelved_offload_time", "resize_confirm_window")
    ),
)  # fmt: skip
"""Every option that this command knows."""
