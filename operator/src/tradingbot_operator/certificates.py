"""The operator's own certificate authority: one certificate per TradingBot UID, and the operator's own."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tradingbot_api import names
from tradingbot_operator.settings import CA_CERTIFICATE, CA_KEY, SettingsError

LIFETIME: Final = timedelta(days=3650)
"""A bot's Secret is immutable and is made once for its UID; it ends no later than the authority itself."""
CLOCK_SKEW: Final = timedelta(hours=1)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class CertificateAuthority:
    """Issues certificates in the name of the operator."""

    def __init__(self, certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes) -> None:
        self._certificate = certificate
        self._key = key
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def load(cls, directory: Path) -> CertificateAuthority:
        """Reads ca.crt and ca.key; SettingsError where they are not a certificate and its key."""
        try:
            certificate = x509.load_pem_x509_certificate((directory / CA_CERTIFICATE).read_bytes())
            key = serialization.load_pem_private_key((directory / CA_KEY).read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(
                f"--ca-dir: expected a PEM certificate and an unencrypted PEM key in {directory}: {error}"
            ) from error
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise SettingsError(f"--ca-dir: expected an RSA or EC key in {directory}, got {type(key).__name__}")
        if key.public_key() != certificate.public_key():
            raise SettingsError(f"--ca-dir: {CA_KEY} is not the key of {CA_CERTIFICATE} in {directory}")
        try:
            if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise SettingsError(f"--ca-dir: {CA_CERTIFICATE} in {directory} is not a certificate authority")
            certificate.verify_directly_issued_by(certificate)
        except (x509.ExtensionNotFound, InvalidSignature, ValueError) as error:
            raise SettingsError(
                f"--ca-dir: expected a self-signed authority in {directory}/{CA_CERTIFICATE}"
            ) from error
        return cls(certificate, key)

    def issue(self, dns_name: str, now: datetime, *, server: bool, client: bool) -> KeyPair:
        """A new key and a certificate for one DNS name, valid from an hour before `now`."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        issuer = self._certificate
        certificate = (
            x509.CertificateBuilder()
            # A common name holds at most 64 characters; the name that is checked is the SAN.
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns_name[:64])]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - CLOCK_SKEW, issuer.not_valid_before_utc))
            .not_valid_after(min(now + LIFETIME, issuer.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns_name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                # Taken over from the issuer: its own identifier need not be the hash that we would make.
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                )
                if _has_identifier(issuer)
                else x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return KeyPair(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )

    def issue_bot(self, uid: str, now: datetime) -> KeyPair:
        """The certificate of the bot of one TradingBot UID."""
        return self.issue(names.bot_server_name(uid), now, server=True, client=False)

    def client_context(self, now: datetime) -> ssl.SSLContext:
        """What the operator shows to bots and demands of them; its key exists only in memory and is not kept."""
        pair = self.issue(names.OPERATOR_SERVER_NAME, now, server=False, client=True)
        context = ssl.create_default_context(cadata=self.pem.decode())
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # ssl reads a key only from a file: an unnamed one would do, but OpenSSL wants a path.
        with tempfile.NamedTemporaryFile(prefix="tradingbot-operator-") as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _has_identifier(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return False
    return True
