"""Starts daemons for its owner and ends all of them when the owner is gone, however it went.

`daemons` runs this file as a process of its own and talks to it by lines of JSON: `{"start": NAME, "command": [...],
"log": FILE}` is answered with a process id, `{"stop": NAME, "signal": NUMBER}` with `stopped` as soon as the daemon
has ended. When standard input ends, every daemon is killed by its id and the directory is removed.

Not PR_SET_PDEATHSIG: that one fires when the *thread* ends that started a daemon, and a test may start one in any.
"""

import json
import shutil
import signal
import subprocess
import sys

# The API server takes leave of its watchers before it ends.
STOP_TIMEOUT = 10.0


def main() -> None:
    """Obey until standard input ends."""
    daemons: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for line in sys.stdin:
            order = json.loads(line)
            if "start" in order:
                _answer(_start(daemons, order["start"], order["command"], order["log"]))
            else:
                _stop(daemons.pop(order["stop"]), order["signal"])
                _answer("stopped")
    finally:
        for daemon in daemons.values():
            _stop(daemon, signal.SIGKILL)
        shutil.rmtree(sys.argv[1], ignore_errors=True)


def _start(daemons: dict[str, subprocess.Popen[bytes]], name: str, command: list[str], log: str) -> str:
    try:
        with open(log, "ab") as output:
            daemons[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    except OSError as error:
        return f"cannot start {name}: {error}"
    return str(daemons[name].pid)


def _stop(daemon: subprocess.Popen[bytes], how: int) -> None:
    daemon.send_signal(how)
    try:
        daemon.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
