"""An authority of its own for an etcd, and certificates that it signs, by openssl(1).

etcd's gateway calls the members with their own certificate, so that one serves for both sides; and
it refuses clients whose certificate has a common name.
"""

import subprocess
from pathlib import Path
from typing import Final

from simulation.etcd import ServerTls

_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_DAYS: Final = ("-days", "2")


class EtcdAuthority:
    """Signs certificates; all files lie in `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        usage = ("-addext", "basicConstraints=critical,CA:TRUE")
        _openssl(
            *("req", "-x509", *_KEY, *_DAYS, "-subj", f"/CN={name}", *usage),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def sign(self, name: str, *, common_name: str = "") -> tuple[Path, Path]:
        """Certificate and key for 127.0.0.1, in files called `name`."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        subject = f"/CN={common_name}" if common_name else "/"
        extensions.write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n",
            encoding="ascii",
        )
        _openssl("req", "-new", *_KEY, "-subj", subject, "-keyout", str(key), "-out", str(request))
        _openssl(
            *("x509", "-req", "-in", str(request), *_DAYS, "-extfile", str(extensions)),
            *("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-out", str(certificate)),
        )
        return certificate, key

    def make_server_tls(self) -> ServerTls:
        """For every member: they differ in their ports only."""
        certificate, key = self.sign("server")
        return ServerTls(authority=self.certificate, certificate=certificate, key=key)


def _openssl(*words: str) -> None:
    done = subprocess.run(
        ("openssl", *words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]}: {done.stderr.strip()[-1000:]}")
