"""Where the API server is and who we are there: one configuration for our own requests and for kopf's watches."""

import os
from pathlib import Path

import kopf
import urllib3
from kubernetes import client, config

_POOL = 16
"""Connections that are kept open: what the controller's writers use at once, and some."""


class NoConnection(Exception):
    """There is no usable configuration; one sentence says what was looked for."""


class Connection:
    """How to reach the API server. Tokens are read anew as they rotate."""

    def __init__(self, kubeconfig: Path | None) -> None:
        """Use `kubeconfig`; None: $KUBECONFIG, else the pod's service account, else ~/.kube/config.

        Raises NoConnection.
        """
        self.configuration = _load(kubeconfig)
        self.configuration.connection_pool_maxsize = _POOL
        # A connection that the server closed meanwhile shows only when it is used: that is worth one more attempt.
        self.configuration.retries = urllib3.Retry(
            total=1, connect=1, read=1, redirect=0, status=0, other=0, allowed_methods=None, backoff_factor=0
        )

    def login(self) -> kopf.ConnectionInfo:
        """What kopf needs to know; called again whenever the server has refused the last answer."""
        given = self.configuration
        header = given.get_api_key_with_prefix("BearerToken") or given.get_api_key_with_prefix("authorization") or ""
        scheme, _, token = header.rpartition(" ")
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
        )


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
    return made
