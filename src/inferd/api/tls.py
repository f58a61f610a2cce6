"""TLS at our own port: certificate and key, checked before anything else starts."""

from __future__ import annotations

import ssl
import stat
from hashlib import sha256
from pathlib import Path

import msgspec

from inferd.errors import BadRequest


class Tls(msgspec.Struct, frozen=True):
    """Two PEM files."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raise BadRequest for what cannot be read or used, and for a key that others may read."""
        try:
            mode = self.key.stat().st_mode
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, _no_password)
        except ssl.SSLError as error:
            raise BadRequest(
                "tls_certificate and tls_key do not fit together or are no PEM files: "
                f"{error.reason or 'unreadable'}."
            ) from None
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            raise BadRequest(f"TLS: {error.strerror}{place}.") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadRequest(f"tls_key: {self.key} can be read by others; run chmod 600 on it.")

    def fingerprint(self) -> str:
        """SHA-256 of the certificate itself: what this machine's command line expects to meet."""
        text = self.certificate.read_text()
        end = "-----END CERTIFICATE-----"
        first = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
        return sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


def _no_password() -> str:
    raise BadRequest("tls_key is encrypted; decrypt it and keep it readable by its owner alone.")
