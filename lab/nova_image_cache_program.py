"""Runs nova's own image cache manager, in nova's environment: a line of JSON in, a line of JSON out, for each pass.

Its classes are nova's and do what they do on a compute node, `qemu-img` included. Two things are not there: the
database, whose rows and block devices are given, and the privileged daemon, whose work this process does itself.
`lab.nova_image_cache` starts it and knows the fields.
"""

import json
import logging
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import nova.conf
from nova import context, objects, privsep
from nova.virt import storage_users
from nova.virt.libvirt import imagecache

CONF = nova.conf.CONF
DISKS = {"swap": "swap_mib", "ephemeral": "ephemeral_gib"}


def main() -> None:
    """Serve until standard input ends; the first argument is the configuration, as JSON."""
    logging.getLogger().addHandler(logging.NullHandler())
    given = json.loads(sys.argv[1])
    CONF([], project="nova", default_config_files=[])
    for name, value in given["options"].items():
        group, _, option = name.rpartition(".")
        CONF.set_override(option, value, group or None)
    privsep.sys_admin_pctxt.set_client_mode(False)
    objects.register_all()
    processes = 0

    def count(event: str, _: Any) -> None:
        nonlocal processes
        processes += event == "subprocess.Popen"

    sys.addaudithook(count)
    say({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        before = processes
        answer = make_pass(request["instances"], register=request["register"])
        say({**answer, "processes": processes - before})


def say(answer: dict[str, Any]) -> None:
    """Write a line of JSON to standard output."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def make_pass(rows: list[dict[str, Any]], *, register: bool) -> dict[str, Any]:
    """What one pass over these rows did; only the manager's own work is timed."""
    base = Path(CONF.instances_path) / CONF.image_cache.subdirectory_name
    if register:
        storage_users.register_storage_use(CONF.instances_path, CONF.host)
        users = storage_users.get_storage_users(CONF.instances_path)
        rows = [row for row in rows if row["host"] in users]
    instances = objects.InstanceList(objects=[instance_of(at, row) for at, row in enumerate(rows, 1)])
    devices = {row["uuid"]: devices_of(row) for row in rows}

    def devices_by_instance(_: object, uuids: list[str]) -> dict[str, Any]:
        return {uuid: devices[uuid] for uuid in uuids}

    objects.BlockDeviceMappingList.bdms_by_instance_uuid = devices_by_instance
    manager = imagecache.ImageCacheManager()
    earlier = stamps(base)
    failure = None
    cpu, started = cpu_seconds(), time.perf_counter()
    try:
        manager.update(context.get_admin_context(), instances)
    except Exception as error:  # noqa: BLE001 - whatever ends nova's pass is what it did
        failure = f"{type(error).__name__}: {error}"
    wall, cpu = time.perf_counter() - started, cpu_seconds() - cpu
    now = stamps(base)
    return {
        "active": sorted({os.path.basename(path) for path in manager.active_base_files}),
        "removable": sorted(os.path.basename(path) for path in manager.removable_base_files),
        "removed": sorted(earlier.keys() - now.keys()),
        "touched": sorted(name for name in earlier.keys() & now.keys() if now[name] != earlier[name]),
        "failure": failure,
        "wall": wall,
        "cpu": cpu,
        "peak_mib": peak_mib(),
    }


def instance_of(number: int, row: dict[str, Any]) -> Any:
    """Return nova's object of an instance; what the manager does not ask for is left out."""
    fields = ("uuid", "host", "image_ref", "kernel_id", "ramdisk_id", "task_state", "vm_state", "os_type")
    return objects.Instance(id=number, **{name: row[name] for name in fields})


def devices_of(row: dict[str, Any]) -> Any:
    """Return nova's objects of an instance's swap and ephemeral disks."""
    fields = objects.BlockDeviceMapping.fields
    # What is not set would be loaded from the database.
    unset = {name: None for name, field in fields.items() if field.nullable and name != "instance"}
    flags = {"delete_on_termination": True, "no_device": False, "encrypted": False}
    blank = {"source_type": "blank", "destination_type": "local", "boot_index": -1, **flags}
    made = [
        objects.BlockDeviceMapping(
            **{**unset, **blank, "guest_format": "swap" if kind == "swap" else None, "volume_size": size}
        )
        for kind, field in DISKS.items()
        for size in row[field]
    ]
    return objects.BlockDeviceMappingList(objects=made)


def stamps(base: Path) -> dict[str, int]:
    """The modification time of every file in the cache."""
    with os.scandir(base) as entries:
        return {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_file()}


def cpu_seconds() -> float:
    """What this process and all that it waited for have used."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def peak_mib() -> float:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
