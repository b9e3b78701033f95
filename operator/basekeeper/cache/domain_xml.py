"""A libvirt domain's XML as our own values: text in, a `Domain` out; asks nobody.

Three things in it matter to the cache: the disks (which file, declared as which format), any path anywhere
that carries a base's name, and nova's metadata (which image the instance was made from). The metadata's two
namespaces are those of `virt/libvirt/config.py`: 1.0 until Victoria, 1.1 since Wallaby.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .names import is_final

_NOVA = ("{http://openstack.org/xmlns/libvirt/nova/1.1}", "{http://openstack.org/xmlns/libvirt/nova/1.0}")
_SEPARATORS = re.compile(r"[\s,;=\"'?]+")
# Since this release the metadata names the image that the first one was made from, not the one booted.
_NAMES_ORIGINAL_IMAGE_SINCE = 32


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A file or block device that a domain's disk is on."""

    path: bytes
    format: str | None
    """The driver's type; None when the XML does not say."""
    device: str = "disk"
    serial: bool = False
    """cinder volumes carry a serial, nova's local disks never do."""
    block: bool = False
    covered: bool = False
    """The domain runs, and its live XML names the disk's whole chain."""

    @property
    def local_file(self) -> bool:
        """Whether it is a disk that nova made in an instance's directory."""
        return not self.block and not self.serial


@dataclass(frozen=True, slots=True)
class Nova:
    """What nova wrote into the domain's metadata."""

    images: frozenset[str] = frozenset()
    version: str | None = None

    @property
    def names_booted_image(self) -> bool:
        """Whether the image is the one that the disks were made from, not one further back."""
        major = re.match(r"\d+", self.version or "")
        return bool(self.images) and major is not None and int(major[0]) < _NAMES_ORIGINAL_IMAGE_SINCE


@dataclass(frozen=True, slots=True)
class Domain:
    """What a domain's XML says."""

    uuid: str
    name: str
    running: bool = False
    disks: tuple[DomainDisk, ...] = ()
    mirrors: tuple[DomainDisk, ...] = ()
    """Where running block jobs copy disks to."""
    boot_files: tuple[bytes, ...] = ()
    """Kernel and initial ramdisk."""
    base_paths: frozenset[bytes] = frozenset()
    """Every path anywhere in the XML whose last component is a base's name."""
    nova: Nova | None = None
    """None: nova did not make it."""
    pooled: tuple[str, ...] = ()
    """Disks that are volumes of a storage pool, `pool/volume`: where they lie, only libvirt knows."""

    @property
    def who(self) -> str:
        """How reports call it."""
        return f"domain {self.uuid}"


def parse(xml: str) -> Domain:
    """Parse a domain's XML; raises ValueError when it is none."""
    try:
        root = ET.fromstring(xml)  # noqa: S314 - libvirt wrote it, and names no entities
    except ET.ParseError as error:
        raise ValueError(f"a domain's XML cannot be parsed ({error})") from error
    # Only live XML carries an id.
    running = root.get("id") is not None
    disks = tuple(_disks(root, running))
    return Domain(
        uuid=(root.findtext("uuid") or "").strip(),
        name=root.findtext("name") or "",
        running=running,
        disks=disks,
        mirrors=tuple(_mirrors(root)),
        boot_files=tuple(_encode(text) for tag in ("kernel", "initrd") if (text := root.findtext(f"os/{tag}"))),
        base_paths=frozenset(_base_paths(root)),
        nova=_nova(root),
        pooled=tuple(_pooled(root)),
    )


def merge(live: Domain, inactive: Domain) -> Domain:
    """A running domain together with what it will be when it starts again."""
    return replace(
        live,
        disks=(*live.disks, *(disk for disk in inactive.disks if disk not in live.disks)),
        boot_files=tuple(dict.fromkeys((*live.boot_files, *inactive.boot_files))),
        base_paths=live.base_paths | inactive.base_paths,
        nova=_merge_nova(live.nova, inactive.nova),
        pooled=tuple(dict.fromkeys((*live.pooled, *inactive.pooled))),
    )


def _merge_nova(live: Nova | None, inactive: Nova | None) -> Nova | None:
    if live is None or inactive is None:
        return live or inactive
    return Nova(live.images | inactive.images, live.version or inactive.version)


def _disks(root: ET.Element, running: bool) -> Iterator[DomainDisk]:
    for disk in root.iterfind("devices/disk"):
        found = _source(disk)
        if found is None:
            continue
        driver = disk.find("driver")
        yield DomainDisk(
            found[0],
            driver.get("type") if driver is not None else None,
            disk.get("device", "disk"),
            serial=bool(disk.findtext("serial")),
            block=found[1],
            covered=running and _chain_is_complete(disk),
        )


def _pooled(root: ET.Element) -> Iterator[str]:
    for disk in root.iterfind("devices/disk[@type='volume']"):
        source = disk.find("source")
        if source is not None and not disk.findtext("serial"):
            yield f"{source.get('pool', '')}/{source.get('volume', '')}"


def _mirrors(root: ET.Element) -> Iterator[DomainDisk]:
    for disk in root.iterfind("devices/disk"):
        for mirror in disk.iterfind("mirror"):
            found = _source(mirror)
            if found is not None:
                form = mirror.find("format")
                yield DomainDisk(
                    found[0],
                    form.get("type") if form is not None else None,
                    serial=bool(disk.findtext("serial")),
                    block=found[1],
                )


def _source(element: ET.Element) -> tuple[bytes, bool] | None:
    """The path of an element's `<source>`, and whether it is a block device; None for what is not local."""
    source = element.find("source")
    if source is None:
        return None
    for attribute, block in (("file", False), ("dev", True)):
        path = source.get(attribute)
        if path:
            return _encode(path), block
    return None


def _chain_is_complete(disk: ET.Element) -> bool:
    """Libvirt ends a chain that it knows to the end with an empty `<backingStore/>`."""
    element = disk.find("backingStore")
    while element is not None:
        if element.find("source") is None:
            return len(element) == 0
        element = element.find("backingStore")
    return False


def _base_paths(root: ET.Element) -> Iterator[bytes]:
    """Any path, in whatever attribute or text, whose last component is a base's name."""
    for element in root.iter():
        for value in (*element.attrib.values(), element.text):
            if value and "/" in value:
                for token in {value, *_SEPARATORS.split(value)}:
                    # An option may stand before the path (`file:/...`); a path in it is absolute.
                    path = _encode(token[token.find("/") :]) if "/" in token else b""
                    if is_final(path.rpartition(b"/")[2].rstrip(b"}])")):
                        yield path.rstrip(b"}])")


def _nova(root: ET.Element) -> Nova | None:
    metadata = root.find("metadata")
    if metadata is None:
        return None
    for space in _NOVA:
        instance = metadata.find(f"{space}instance")
        if instance is not None:
            package = instance.find(f"{space}package")
            images = [image.get("uuid") for image in instance.iterfind(f"{space}image")]
            images += [one.get("uuid") for one in instance.iterfind(f"{space}root") if one.get("type") == "image"]
            return Nova(
                frozenset(image for image in images if image),
                package.get("version") if package is not None else None,
            )
    return None


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
