"""What a domain's XML says about disks, bases and images."""

import pytest

from basekeeper.cache.domain_xml import DomainDisk, Nova, merge, parse

SHA = "0123456789abcdef0123456789abcdef01234567"
BASE = f"/var/lib/nova/instances/_base/{SHA}"
DISK = "/var/lib/nova/instances/u/disk"


def domain(devices: str = "", *, metadata: str = "", os: str = "", attributes: str = "", extra: str = "") -> str:
    return f"""<domain type='kvm' {attributes} xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <name>instance-00000001</name><uuid>u-u-i-d</uuid><metadata>{metadata}</metadata>
      <os><type>hvm</type>{os}</os><devices>{devices}</devices>{extra}</domain>"""


def disk(inner: str, attributes: str = "type='file' device='disk'") -> str:
    return f"<disk {attributes}>{inner}</disk>"


OVERLAY = f"<driver name='qemu' type='qcow2'/><source file='{DISK}' index='1'/>"
CHAIN = f"<backingStore type='file'><format type='raw'/><source file='{BASE}'/><backingStore/></backingStore>"


def test_who_it_is() -> None:
    found = parse(domain(attributes="id='7'"))
    assert (found.uuid, found.name, found.running, found.who) == (
        "u-u-i-d",
        "instance-00000001",
        True,
        "domain u-u-i-d",
    )
    assert not parse(domain()).running


DISKS = {
    "an overlay": (disk(OVERLAY), DomainDisk(DISK.encode(), "qcow2")),
    "a driver without a type": (
        disk(f"<driver name='qemu'/><source file='{DISK}'/>"),
        DomainDisk(DISK.encode(), None),
    ),
    "no driver": (disk(f"<source file='{DISK}'/>", "type='file'"), DomainDisk(DISK.encode(), None)),
    "a config drive": (
        disk(f"<driver type='raw'/><source file='{DISK}.config'/>", "type='file' device='cdrom'"),
        DomainDisk(f"{DISK}.config".encode(), "raw", "cdrom"),
    ),
    "a cinder volume": (
        disk("<driver type='raw'/><source dev='/dev/sdb'/><serial>v-o-l</serial>", "type='block' device='disk'"),
        DomainDisk(b"/dev/sdb", "raw", serial=True, block=True),
    ),
    "a cinder volume on NFS": (
        disk(f"{OVERLAY}<serial>v-o-l</serial>"),
        DomainDisk(DISK.encode(), "qcow2", serial=True),
    ),
    "an empty serial is none": (disk(f"{OVERLAY}<serial/>"), DomainDisk(DISK.encode(), "qcow2")),
}


@pytest.mark.parametrize("case", DISKS)
def test_disks(case: str) -> None:
    xml, expected = DISKS[case]
    assert parse(domain(xml)).disks == (expected,)


@pytest.mark.parametrize("inner", ["<source protocol='rbd' name='vms/u_disk'/>", "<source/>", ""])
def test_disks_that_are_not_local_are_left_out(inner: str) -> None:
    assert parse(domain(disk(inner, "type='network' device='disk'"))).disks == ()


COVERED = {
    "a complete chain": (CHAIN, True),
    "no backing file at all": ("<backingStore/>", True),
    "a chain that libvirt did not look into": ("", False),
    "a chain that stops short": (f"<backingStore type='file'><source file='{BASE}'/></backingStore>", False),
}


@pytest.mark.parametrize("case", COVERED)
def test_only_a_complete_live_chain_covers(case: str) -> None:
    chain, covered = COVERED[case]
    xml = disk(OVERLAY + chain)
    assert parse(domain(xml, attributes="id='1'")).disks[0].covered is covered
    assert parse(domain(xml)).disks[0].covered is False


BASE_PATHS = {
    "a chain": domain(disk(OVERLAY + CHAIN)),
    "the disk itself, after a pivot": domain(disk(f"<source file='{BASE}'/>")),
    "a mirror": domain(disk(f"{OVERLAY}<mirror type='file' job='copy'><source file='{BASE}'/></mirror>")),
    "a kernel": domain(os=f"<kernel>{BASE}</kernel>"),
    "a qemu argument": domain(extra=f"<qemu:commandline><qemu:arg value='file={BASE},if=none'/></qemu:commandline>"),
    "a qemu argument in json": domain(
        extra='<qemu:commandline><qemu:arg value=\'{"filename":"' + BASE + "\"}'/></qemu:commandline>"
    ),
    "a specification": domain(disk(f"<source file='file:{BASE}'/>")),
}


@pytest.mark.parametrize("case", BASE_PATHS)
def test_a_base_is_found_anywhere(case: str) -> None:
    assert BASE.encode() in parse(BASE_PATHS[case]).base_paths


def test_other_paths_and_bare_hashes_are_no_bases() -> None:
    assert parse(domain(disk(OVERLAY), metadata=f"<x>{SHA}</x><y>{BASE}.part</y>")).base_paths == frozenset()


def nova(space: str, inner: str) -> str:
    address = f"http://openstack.org/xmlns/libvirt/nova/{space}"
    return domain(metadata=f"<nova:instance xmlns:nova='{address}'>{inner}</nova:instance>")


NOVA = {
    "until Victoria": (
        nova("1.0", "<nova:package version='21.2.4'/><nova:root type='image' uuid='i'/>"),
        Nova(frozenset({"i"}), "21.2.4"),
        True,
    ),
    "since Wallaby": (
        nova("1.1", "<nova:package version='31.0.0-1.el9'/><nova:root type='image' uuid='i'/>"),
        Nova(frozenset({"i"}), "31.0.0-1.el9"),
        True,
    ),
    "since 32 it is the original image": (
        nova("1.1", "<nova:package version='32.0.0'/><nova:image uuid='i'/><nova:root type='image' uuid='i'/>"),
        Nova(frozenset({"i"}), "32.0.0"),
        False,
    ),
    "booted from a volume": (
        nova("1.1", "<nova:package version='34.0.0'/><nova:image uuid=''/><nova:root type='volume' uuid='v'/>"),
        Nova(frozenset(), "34.0.0"),
        False,
    ),
    "a version that is none": (
        nova("1.1", "<nova:package version='dev'/><nova:root type='image' uuid='i'/>"),
        Nova(frozenset({"i"}), "dev"),
        False,
    ),
    "nothing in it": (nova("1.1", ""), Nova(), False),
}


@pytest.mark.parametrize("case", NOVA)
def test_metadata(case: str) -> None:
    xml, expected, booted = NOVA[case]
    found = parse(xml).nova
    assert found == expected
    assert found.names_booted_image is booted


def test_no_metadata_is_not_novas() -> None:
    assert parse(domain(metadata="<other/>")).nova is None


def test_a_running_domain_and_its_definition_are_one() -> None:
    live = parse(domain(disk(OVERLAY + CHAIN), attributes="id='1'"))
    defined = parse(domain(disk("<driver type='raw'/><source file='/other'/>"), os="<kernel>/k</kernel>"))
    both = merge(live, defined)
    assert [one.path for one in both.disks] == [DISK.encode(), b"/other"]
    assert (both.running, both.boot_files) == (True, (b"/k",))
    assert both.base_paths == live.base_paths


def test_what_is_no_xml() -> None:
    with pytest.raises(ValueError, match="cannot be parsed"):
        parse("<domain>")


def test_a_volume_of_a_storage_pool_is_told_as_such_unless_it_is_cinders() -> None:
    volume = "<driver type='qcow2'/><source pool='default' volume='vm.qcow2'/>"
    attributes = "type='volume' device='disk'"
    assert parse(domain(disk(volume, attributes))).pooled == ("default/vm.qcow2",)
    assert parse(domain(disk(f"{volume}<serial>v-o-l</serial>", attributes))).pooled == ()
