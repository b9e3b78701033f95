"""Compute nodes with a libvirtd of their own, as many as wanted, on one machine.

Root gets system daemons: each sees private copies of libvirt's directories, so the host's libvirt is neither used
nor noticed. Everybody else gets session daemons with directories of their own. Either way the node has its own
host name and host UUID, which is what libvirt asks for before it migrates a domain from one to another, and its
sockets can be reached from outside by `uri` and `read_only_uri`.

    with ComputeNode("node-a") as node:
        node.create(domain_xml("instance-00000001", disks=[Disk(path)]))
        node.domains()

A node that is left behind, even by a process that was killed, ends with everything that it started (`keeper`).
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from glob import glob
from pathlib import Path

from lab.libvirt_files import recall_capabilities, remember_capabilities, write_accounts
from lab.opening import Opening

START_TIMEOUT = 30.0
COMMAND_TIMEOUT = 60.0
# What connect(2) takes as the path of a socket, its final zero byte included.
_LONGEST_SOCKET_PATH = 108
_SBIN = ("/usr/sbin", "/sbin")
_LIBVIRT_DIRECTORIES = {
    "run": Path("/run/libvirt"),
    "lib": Path("/var/lib/libvirt"),
    "etc": Path("/etc/libvirt"),
    "log": Path("/var/log/libvirt"),
    "cache": Path("/var/cache/libvirt"),
}
_DRIVERS = ("/usr/lib*/libvirt/connection-driver", "/usr/lib*/*/libvirt/connection-driver")


class LabError(Exception):
    """Raised when the laboratory cannot do what a test asked of it: says the command and its complaint."""


class CommandTimeoutError(LabError):
    """Raised when virsh had no answer in time, as from a paused libvirtd."""


def available() -> str | None:
    """Say why no compute node can run here, or None when one can."""
    programs = ("libvirtd", "virsh", "qemu-system-x86_64", "qemu-img", "unshare")
    missing = [program for program in programs if _find(program) is None]
    if not any(glob(f"{directory}/libvirt_driver_qemu.so") for directory in _DRIVERS):
        missing.append("libvirt's qemu driver")
    if missing:
        return f"{', '.join(missing)} not installed: run scripts/setup test"
    probe = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        who = "root" if _is_root() else "this user"
        return f"{who} may not make namespaces here: {probe.stderr.strip()} (a container needs --privileged)"
    return None


class ComputeNode(Opening):
    """One hypervisor: a host name, a libvirtd, and whatever runs in it."""

    def __init__(
        self,
        name: str,
        *,
        qemu_user: str | None = "+0",
        directories: Mapping[Path, Path] | None = None,
        with_polkit: bool = False,
    ) -> None:
        """Describe a node called `name`; what else can be said is for root's nodes only.

        `qemu_user` owns its disks and runs its qemu; with None qemu is root's, and disks stay whose they are. In place
        of this machine's `directories` its libvirtd sees others. `with_polkit` leaves the read-only socket to polkit as
        openstack-helm does, which sets `auth_unix_rw` only.
        """
        self.name = name
        self._directories = directories or {}
        self._with_polkit = with_polkit
        self.host_uuid = str(uuid.uuid4())
        # Not the test's own directory: sockets below it must have short names.
        self.root = Path(tempfile.mkdtemp(prefix="bk-"))
        self.root.chmod(0o755)
        self._qemu_user = qemu_user
        self._keeper: subprocess.Popen[str] | None = None
        self.libvirtd_pid: int | None = None

    # --- life --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._start_keeper()
        self.start_libvirtd()

    def close(self) -> None:
        """End libvirtd and every domain, and remove the node's directory; once more does no harm."""
        if self._keeper is not None:
            assert self._keeper.stdin is not None
            remember_capabilities(self._cache)
            with contextlib.suppress(BrokenPipeError):
                self._keeper.stdin.close()
            self._keeper.wait()
            assert self._keeper.stdout is not None
            self._keeper.stdout.close()
            self._keeper = None
            self.libvirtd_pid = None
        shutil.rmtree(self.root, ignore_errors=True)

    def start_libvirtd(self) -> None:
        """Start the daemon, as after `stop_libvirtd`: domains that went on running are found again."""
        self.libvirtd_pid = int(self._tell("start"))
        self._wait_until_it_answers()

    def stop_libvirtd(self) -> None:
        """Stop the daemon; domains go on without it."""
        self._tell("stop")
        self.libvirtd_pid = None

    def pause_libvirtd(self) -> None:
        """Let the daemon hang: its sockets accept, nobody answers."""
        os.kill(self._running_libvirtd(), signal.SIGSTOP)

    def resume_libvirtd(self) -> None:
        """Let the daemon go on after `pause_libvirtd`."""
        os.kill(self._running_libvirtd(), signal.SIGCONT)

    def processes(self) -> list[int]:
        """Return the ids of the keeper, of libvirtd and of every qemu (root's nodes only)."""
        ours = os.stat(f"/proc/{self._running_libvirtd()}/ns/uts").st_ino
        found = []
        for namespace in Path("/proc").glob("[0-9]*/ns/uts"):
            with contextlib.suppress(OSError):
                if namespace.stat().st_ino == ours:
                    found.append(int(namespace.parts[2]))
        return found

    # --- how to reach it ---------------------------------------------------------------------------------------

    @property
    def socket(self) -> Path:
        """The socket that is good for everything."""
        return self._sockets / "libvirt-sock"

    @property
    def read_only_socket(self) -> Path:
        """The socket for `openReadOnly`; a session daemon has one socket for both."""
        return self._sockets / ("libvirt-sock-ro" if _is_root() else "libvirt-sock")

    @property
    def uri(self) -> str:
        """What virsh and basekeeper take, from outside the node."""
        return self._uri(self.socket)

    @property
    def read_only_uri(self) -> str:
        """Like `uri`, for connections that only read."""
        return self._uri(self.read_only_socket)

    def virsh(self, *arguments: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run virsh against this node and return what it prints; a complaint or a time-out is an error."""
        command = ["virsh", "--quiet", "--connect", self.uri, *arguments]
        # A directory of its own for virsh too: it would leave a history in the caller's home.
        environment = {**os.environ, "LC_ALL": "C", "XDG_CACHE_HOME": str(self.root), "XDG_CONFIG_HOME": str(self.root)}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CommandTimeoutError(f"virsh {' '.join(arguments)}: no answer within {timeout} s") from error
        if done.returncode != 0:
            raise LabError(f"virsh {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    # --- domains -----------------------------------------------------------------------------------------------

    def define(self, xml: str) -> None:
        """Make a persistent domain, shut off."""
        self._virsh_with_xml("define", xml)

    def create(self, xml: str) -> None:
        """Make and start a transient domain."""
        self._virsh_with_xml("create", xml)

    def start(self, domain: str) -> None:
        """Start a defined domain."""
        self.virsh("start", domain)

    def suspend(self, domain: str) -> None:
        """Stop the domain's processors."""
        self.virsh("suspend", domain)

    def resume(self, domain: str) -> None:
        """Let a suspended domain go on."""
        self.virsh("resume", domain)

    def destroy(self, domain: str) -> None:
        """Pull the domain's plug."""
        self.virsh("destroy", domain)

    def undefine(self, domain: str) -> None:
        """Forget a persistent domain."""
        self.virsh("undefine", domain)

    def domains(self, *, all_of_them: bool = True) -> list[str]:
        """Name the domains, or only those that run."""
        return self.virsh("list", "--name", *(["--all"] if all_of_them else [])).split()

    def state(self, domain: str) -> str:
        """Say what the domain does, in virsh's words: `running`, `paused`, `shut off`."""
        return self.virsh("domstate", domain)

    def xml(self, domain: str, *, inactive: bool = False) -> str:
        """Return the domain's XML as libvirt tells it."""
        return self.virsh("dumpxml", domain, *(["--inactive"] if inactive else []))

    def qemu_pid(self, domain: str) -> int:
        """Return the process id of a running domain's qemu."""
        directory = self.root / "run/qemu" if _is_root() else self.root / "run/libvirt/qemu/run"
        return int((directory / f"{domain}.pid").read_text())

    # --- what happens to disks ---------------------------------------------------------------------------------

    def snapshot(self, domain: str, disk: str, file: Path) -> None:
        """Put an external snapshot over a disk (`vda`): `file` becomes its new top."""
        self.virsh("snapshot-create-as", domain, "--disk-only", "--no-metadata", "--diskspec", f"{disk},file={file}")

    def blockcommit(self, domain: str, disk: str, *options: str) -> None:
        """Fold a disk's top into what is below it, down to the base unless `options` say `--base`."""
        self.virsh("blockcommit", domain, disk, "--active", "--pivot", "--wait", *options)

    def blockpull(self, domain: str, disk: str, *options: str) -> None:
        """Copy what a disk reads from its chain into its top."""
        self.virsh("blockpull", domain, disk, "--wait", *options)

    def migrate_to(self, other: "ComputeNode", domain: str, *options: str) -> None:
        """Move a running domain to another node; both see the same disks under the same paths."""
        self.virsh(
            *("migrate", "--live", "--persistent", "--undefinesource", "--unsafe", *options),
            *(domain, other.uri, "--migrateuri", "tcp://127.0.0.1"),
        )

    # --- inside ------------------------------------------------------------------------------------------------

    @property
    def _sockets(self) -> Path:
        return self.root / "run" if _is_root() else self.root / "run/libvirt"

    def _uri(self, path: Path) -> str:
        return f"qemu+unix:///{'system' if _is_root() else 'session'}?socket={path}"

    def _running_libvirtd(self) -> int:
        if self.libvirtd_pid is None:
            raise LabError(f"{self.name}: libvirtd is not running")
        return self.libvirtd_pid

    def _virsh_with_xml(self, command: str, xml: str) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".xml", dir=self.root) as file:
            file.write(xml)
            file.flush()
            self.virsh(command, file.name)

    def _start_keeper(self) -> None:
        if len(str(self.read_only_socket)) >= _LONGEST_SOCKET_PATH:
            raise LabError(f"{self.root}: too long a path for sockets; set TMPDIR to a shorter one")
        for name in ("run", "lib", "etc", "log", "cache"):
            (self.root / name).mkdir(mode=0o755)
        self._configure()
        recall_capabilities(self._cache)
        program = _find("libvirtd")
        if program is None:
            raise LabError(available() or "libvirtd has gone")
        # libvirtd's own default is one file for the whole machine.
        daemon = [program, "--pid-file", str(self.root / "libvirtd.pid")]
        binds: list[str] = []
        environment = dict(os.environ)
        if _is_root():
            for target, source in self._directories.items():
                binds += ["--bind", str(source), str(target)]
            for name, target in _LIBVIRT_DIRECTORIES.items():
                # Empty where the package made none, as on a host that never ran libvirt.
                self._outside(target).mkdir(parents=True, exist_ok=True)
                binds += ["--bind", str(self.root / name), str(target)]
            for source, target in write_accounts(self.root):
                binds += ["--bind", str(source), str(target)]
        else:
            (self.root / "run").chmod(0o700)
            environment |= {
                "HOME": str(self.root),
                "XDG_RUNTIME_DIR": str(self.root / "run"),
                "XDG_CONFIG_HOME": str(self.root / "etc"),
                "XDG_DATA_HOME": str(self.root / "lib"),
                "XDG_CACHE_HOME": str(self.root / "cache"),
            }
        keeper = [sys.executable, "-I", str(Path(__file__).with_name("keeper.py"))]
        self._keeper = subprocess.Popen(
            [*_unshare(), *keeper, "--root", str(self.root), "--hostname", self.name, *binds, *daemon],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the owner, who then closes the node in order
        )
        self._expect("ready")

    def _outside(self, path: Path) -> Path:
        """Where a directory of the node lies on this machine."""
        for target, source in self._directories.items():
            if path.is_relative_to(target):
                return source / path.relative_to(target)
        return path

    def _configure(self) -> None:
        directory = self.root / "etc" if _is_root() else self.root / "etc/libvirt"
        directory.mkdir(exist_ok=True)
        settings = ['auth_unix_rw = "none"']
        if not self._with_polkit:
            # libvirt would ask polkit, which tests and containers do not have.
            settings += ['auth_unix_ro = "none"', 'unix_sock_ro_perms = "0777"', 'unix_sock_rw_perms = "0777"']
        (directory / "libvirtd.conf").write_text("\n".join([f'host_uuid = "{self.host_uuid}"', *settings, ""]))
        user = self._qemu_user
        owner = f'user = "{user or "+0"}"\ngroup = "{user or "+0"}"\nremember_owner = 0\n' if _is_root() else ""
        owner += "" if user else "dynamic_ownership = 0\n"
        (directory / "qemu.conf").write_text(
            'security_driver = "none"\ncgroup_controllers = [ ]\nnamespaces = [ ]\nstdio_handler = "file"\n' + owner
        )

    @property
    def _cache(self) -> Path:
        return self.root / ("cache" if _is_root() else "cache/libvirt")

    def _tell(self, command: str) -> str:
        if self._keeper is None or self._keeper.stdin is None:
            raise LabError(f"{self.name} is not open")
        self._keeper.stdin.write(command + "\n")
        return self._hear()

    def _expect(self, answer: str) -> None:
        if (heard := self._hear()) != answer:
            raise LabError(f"{self.name}: expected {answer!r}, heard {heard!r}")

    def _hear(self) -> str:
        assert self._keeper is not None
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            raise LabError(f"{self.name}: its keeper ended, with status {self._keeper.wait()}")
        return line.strip()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as attempt:
                    attempt.connect(str(self.socket))
                self.virsh("uri")
                return
            except (OSError, LabError) as error:
                if time.monotonic() > deadline or has_ended(self._running_libvirtd()):
                    log = (self.root / "libvirtd.log").read_text(errors="replace")
                    raise LabError(f"{self.name}: libvirtd does not answer: {error}\n{log}") from error
                time.sleep(0.02)


def _is_root() -> bool:
    return os.geteuid() == 0


def has_ended(process: int) -> bool:
    """Say whether a process has ended; a zombie has, though its parent may not have noticed yet."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def _find(program: str) -> str | None:
    """Find a program, in sbin too: an ordinary user's PATH leaves it out on Debian."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN]))


def _unshare() -> list[str]:
    if _is_root():
        # Slave: what the test mounts later is seen inside; what is bound inside is never seen outside.
        return ["unshare", "--mount", "--uts", "--propagation", "slave"]
    # Still itself by number, so that libvirtd runs as a session daemon, but free to set the node's host name.
    return ["unshare", "--user", "--map-current-user", "--keep-caps", "--uts"]
