"""A certificate authority of the laboratory's own, made at run time: no key lies in the tree."""

import subprocess
from pathlib import Path

from lab.compute_node import LabError

# Long enough for any test, and short enough that nobody is tempted to keep one.
_DAYS = "2"
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """Signs certificates for servers on loopback; whoever trusts `file` trusts them."""

    def __init__(self, directory: Path) -> None:
        """Make a new authority that keeps its files in `directory`."""
        directory.mkdir(mode=0o700)
        self._directory = directory
        self._key = directory / "ca.key"
        self.file = directory / "ca.crt"
        _openssl(
            *("req", "-x509", *_CURVE, "-days", _DAYS, "-subj", "/CN=basekeeper-lab"),
            # Python 3.13 refuses an authority that does not say what it is for.
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(self._key), "-out", str(self.file)),
        )

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """Make the certificate and the key of a server that listens on loopback, and on other addresses perhaps."""
        certificate, key = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        _openssl(
            *("req", "-x509", *_CURVE, "-days", _DAYS, "-subj", f"/CN={name}"),
            *("-CA", str(self.file), "-CAkey", str(self._key)),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth"),
            *("-addext", ",".join(["subjectAltName=IP:127.0.0.1,DNS:localhost", *(f"IP:{a}" for a in addresses)])),
            *("-keyout", str(key), "-out", str(certificate)),
        )
        return certificate, key


def make_signing_key(file: Path) -> None:
    """Make the key that signs the tokens of service accounts."""
    _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(file))


def _openssl(*arguments: str) -> None:
    # The host's openssl.cnf has no say: it may add extensions of its own, twice.
    command = ["openssl", *arguments]
    if arguments[0] == "req":
        command += ["-config", "/dev/null"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError("openssl is not installed: run scripts/setup test") from error
    if done.returncode != 0:
        raise LabError(f"openssl {arguments[0]}: {done.stderr.strip()}")
