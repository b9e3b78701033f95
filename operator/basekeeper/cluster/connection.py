"""Where the API server is and who we are there: one configuration for our own requests and for kopf's watches."""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Self

import kopf
import urllib3
from kubernetes import client, config

_log = logging.getLogger(__name__)
_POOL = 16
"""Connections that are kept open: what the controller's writers use at once, and some."""
_READ_AGAIN = 60.0
"""Seconds after which credentials are read anew: a pod's token is replaced long before it ends."""


class NoConnection(Exception):
    """There is no usable configuration; one sentence says what was looked for."""


class _Once(urllib3.Retry):
    """One more attempt for what a kept connection causes that the server has closed meanwhile, and for nothing else.

    A server that does not answer in time may be at work on the request: asking again would double the wait and,
    perhaps, what was asked for.
    """

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        """What is left after a failure. Raises it if it was a time-out."""
        if isinstance(error, urllib3.exceptions.TimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


class Connection:
    """How to reach the API server. Credentials are read anew as they rotate."""

    def __init__(self, kubeconfig: Path | None) -> None:
        """Use `kubeconfig`; None: $KUBECONFIG, else the pod's service account, else ~/.kube/config.

        Raises NoConnection.
        """
        self._kubeconfig = kubeconfig
        self._lock = threading.Lock()
        self._read_at = time.monotonic()
        self.configuration = _load(kubeconfig)
        self.configuration.connection_pool_maxsize = _POOL
        self.configuration.retries = _Once(
            total=1, connect=0, read=1, redirect=0, status=0, other=0, allowed_methods=None, backoff_factor=0
        )
        # The library's own hooks know no token file of a kubeconfig, and would put back what they have read once.
        self.configuration.refresh_api_key_hook = self._read_in_time  # type: ignore[assignment]  # typed as None

    def login(self) -> kopf.ConnectionInfo:
        """What kopf needs to know."""
        given = self.configuration
        scheme, _, token = self._authorization().rpartition(" ")
        return kopf.ConnectionInfo(
            server=given.host,
            ca_path=given.ssl_ca_cert,
            insecure=not given.verify_ssl,
            username=given.username or None,
            password=given.password or None,
            scheme=scheme or None,
            token=token or None,
            certificate_path=given.cert_file,
            private_key_path=given.key_file,
            proxy_url=given.proxy or None,
        )

    def renew(self, refused: str) -> bool:
        """Read the credentials anew because the server refused these, a header's value; whether they are others now."""
        if self._authorization() == refused:
            self._read()
        return self._authorization() != refused

    def _authorization(self) -> str:
        given = self.configuration
        return given.get_api_key_with_prefix("BearerToken") or given.get_api_key_with_prefix("authorization") or ""

    def _read_in_time(self, _configuration: client.Configuration) -> None:
        if time.monotonic() - self._read_at > _READ_AGAIN:
            self._read()

    def _read(self) -> None:
        with self._lock:
            self._read_at = time.monotonic()
            try:
                self.configuration.api_key = _load(self._kubeconfig).api_key
            except NoConnection as error:
                _log.warning("the credentials cannot be read anew: %s", error)


def _load(kubeconfig: Path | None) -> client.Configuration:
    made = client.Configuration()
    path = str(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG")
    try:
        if path is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(config_file=path, client_configuration=made)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, ValueError) as error:
        where = path or "the pod's service account or ~/.kube/config"
        message = f"the API server cannot be found by {where}: {error}; give a kubeconfig with --kubeconfig"
        raise NoConnection(" ".join(message.split())) from error
    # A token file may end in a line feed, which no header may.
    made.api_key = {name: value.strip() for name, value in made.api_key.items()}
    return made
