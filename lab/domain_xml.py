"""Domains as nova defines them, small enough to start in half a second without KVM."""

import uuid as uuids
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

NOVA_1_0 = "http://openstack.org/xmlns/libvirt/nova/1.0"
"""The metadata's namespace from Juno to Victoria."""
NOVA_1_1 = "http://openstack.org/xmlns/libvirt/nova/1.1"
"""The metadata's namespace since Wallaby."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a domain, on a file."""

    path: Path
    format: str = "qcow2"
    serial: str | None = None
    """Set by nova for cinder volumes, never for local disks."""
    read_only: bool = False
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class NovaMetadata:
    """What nova writes about an instance into its domain."""

    image: str | None = None
    """The image's UUID; nova names the original image, not a snapshot of it."""
    namespace: str = NOVA_1_1
    package: str = "34.0.0"
    booted_from_volume: bool = False

    def xml(self, name: str) -> str:
        """Write the metadata of an instance that is called `name`."""
        image = "" if self.booted_from_volume else self.image
        parts = [
            f"<nova:package version={quoteattr(self.package)}/>",
            f"<nova:name>{escape(name)}</nova:name>",
            "<nova:creationTime>2026-01-01 00:00:00</nova:creationTime>",
            '<nova:flavor name="m1.tiny"><nova:memory>64</nova:memory><nova:disk>1</nova:disk></nova:flavor>',
        ]
        if image is not None and self.namespace == NOVA_1_1:
            parts.append(f"<nova:image uuid={quoteattr(image)}/>")
        if image:
            parts.append(f'<nova:root type="image" uuid={quoteattr(image)}/>')
        inside = "".join(parts)
        return f'<metadata><nova:instance xmlns:nova="{self.namespace}">{inside}</nova:instance></metadata>'


def domain_xml(
    name: str,
    *,
    uuid: str | None = None,
    disks: Sequence[Disk] = (),
    metadata: NovaMetadata | None = None,
    memory_mib: int = 64,
) -> str:
    """Write a domain that runs anywhere: emulated processor, no network, its disks as vda, vdb and so on."""
    return (
        f"<domain type='qemu'><name>{escape(name)}</name><uuid>{uuid or uuids.uuid4()}</uuid>"
        f"{metadata.xml(name) if metadata else ''}"
        f"<memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os>"
        "<devices><controller type='usb' model='none'/><memballoon model='none'/>"
        f"{''.join(_disk_xml(index, disk) for index, disk in enumerate(disks))}"
        "</devices></domain>"
    )


def _disk_xml(index: int, disk: Disk) -> str:
    cache = f" cache={quoteattr(disk.cache)}" if disk.cache else ""
    return (
        "<disk type='file' device='disk'>"
        f"<driver name='qemu' type={quoteattr(disk.format)}{cache}/>"
        f"<source file={quoteattr(str(disk.path))}/><target dev='vd{chr(ord('a') + index)}' bus='virtio'/>"
        f"{f'<serial>{escape(disk.serial)}</serial>' if disk.serial else ''}"
        f"{'<readonly/>' if disk.read_only else ''}</disk>"
    )
