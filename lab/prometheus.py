"""A real Prometheus on loopback, and promtool: what judges rules and what dashboards ask.

    with Prometheus(config) as prometheus:
        prometheus.query("up")

`config` is what `prometheus.yml` holds. Both programs are built by `scripts/tool` when they are not there yet.
"""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import yaml

from lab.compute_node import LabError
from lab.control_plane_programs import tool
from lab.daemons import Daemons, free_ports
from lab.opening import Opening

_NAME = "prometheus"
_START_TIMEOUT = 60.0
Series = dict[str, Any]


def promtool(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool, which may read what is given from its standard input."""
    command = [str(tool(_NAME) / "promtool"), *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=120)


class Prometheus(Opening):
    """A server that keeps what it scrapes for as long as the context lasts."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Nothing runs yet."""
        self._config = config
        self._daemons = Daemons()
        (self._port,) = free_ports(1)

    def _open(self) -> None:
        self._daemons.__enter__()
        self._start()

    def close(self) -> None:
        """End it and remove its directory; once more does no harm."""
        self._daemons.close()

    def _start(self) -> None:
        root = self._daemons.root
        file = root / "prometheus.yml"
        file.write_text(yaml.safe_dump(dict(self._config)), encoding="utf-8")
        self._daemons.start(
            _NAME,
            [
                str(tool(_NAME) / _NAME),
                f"--config.file={file}",
                f"--storage.tsdb.path={root / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
        )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._is_ready():
            if not self._daemons.runs(_NAME) or time.monotonic() > deadline:
                raise LabError(f"Prometheus does not serve: {self._daemons.log(_NAME)}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    # --- questions ---------------------------------------------------------------------------------------------

    def query(self, expression: str) -> list[Series]:
        """Return the series that an expression has now."""
        return list(self.ask("query", query=expression)["result"])

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Return the series that an expression had from `start` to `end`, Unix seconds."""
        words = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        return list(self.ask("query_range", **words)["result"])

    def label_values(self, label: str, of: str) -> list[str]:
        """Return the values of a label among the series that a selector chooses."""
        return [str(value) for value in self.ask(f"label/{label}/values", **{"match[]": of})]

    def alerts(self) -> list[Series]:
        """Return the alerts that are pending or firing."""
        return list(self.ask("alerts")["alerts"])

    def ask(self, what: str, **words: str) -> Any:
        """Ask the HTTP API. Raises LabError with its own words where it refuses."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise LabError(f"{what} {words}: {json.load(error).get('error')}") from error
