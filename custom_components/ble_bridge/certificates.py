"""Certificates and keys as users upload them: whether they are what they should be.

Files may be PEM or DER; what comes out is PEM, and keys have no password any more.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

# Far more than certificates and keys are.
MAX_SIZE: Final = 512 * 1024


class Fault(StrEnum):
    """What can be wrong with a file; each is an error of the forms."""

    CA_INVALID = "ca_invalid"
    CA_OUTDATED = "ca_outdated"
    CA_EARLY = "ca_early"
    CLIENT_CERTIFICATE_INVALID = "client_certificate_invalid"
    CLIENT_CERTIFICATE_OUTDATED = "client_certificate_outdated"
    CLIENT_CERTIFICATE_EARLY = "client_certificate_early"
    CLIENT_KEY_INVALID = "client_key_invalid"
    CLIENT_KEY_LOCKED = "client_key_locked"
    CLIENT_KEY_PASSWORD = "client_key_wrong_password"  # noqa: S105
    CLIENT_KEY_MISMATCH = "client_key_mismatch"


class CertificateError(Exception):
    """A file that cannot be used; `date` is when it expired, or begins to be valid."""

    def __init__(self, fault: Fault, date: datetime | None = None) -> None:
        """Initialize with what is wrong."""
        super().__init__(fault.value)
        self.fault = fault
        self.date = date


def read_ca(data: bytes, now: datetime) -> str:
    """Return the certificates of authorities in a file; raises CertificateError.

    Of several, one that has expired does no harm beside one that has not.
    """
    certificates = _certificates(data, Fault.CA_INVALID)
    last = max(certificate.not_valid_after_utc for certificate in certificates)
    if last < now:
        raise CertificateError(Fault.CA_OUTDATED, last)
    first = min(certificate.not_valid_before_utc for certificate in certificates)
    if first > now:
        raise CertificateError(Fault.CA_EARLY, first)
    return _pem(certificates)


def read_client_certificate(data: bytes, now: datetime) -> str:
    """Return a client certificate and those that signed it; raises CertificateError."""
    certificates = _certificates(data, Fault.CLIENT_CERTIFICATE_INVALID)
    for certificate in certificates:
        if (last := certificate.not_valid_after_utc) < now:
            raise CertificateError(Fault.CLIENT_CERTIFICATE_OUTDATED, last)
        if (first := certificate.not_valid_before_utc) > now:
            raise CertificateError(Fault.CLIENT_CERTIFICATE_EARLY, first)
    return _pem(certificates)


def read_key(data: bytes, password: str | None) -> str:
    """Return the private key in a file, without its password; raises CertificateError."""
    try:
        key = _load_key(data, None)
    except TypeError:
        if not password:
            raise CertificateError(Fault.CLIENT_KEY_LOCKED) from None
        try:
            key = _load_key(data, password.encode())
        except (ValueError, UnsupportedAlgorithm) as err:
            raise CertificateError(Fault.CLIENT_KEY_PASSWORD) from err
    except (ValueError, UnsupportedAlgorithm) as err:
        raise CertificateError(Fault.CLIENT_KEY_INVALID) from err
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def check_pair(certificate: str, key: str) -> None:
    """Check that a key belongs to a certificate (PEM); raises CertificateError."""
    theirs = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    ours = load_pem_private_key(key.encode(), None).public_key()
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if theirs.public_bytes(*form) != ours.public_bytes(*form):
        raise CertificateError(Fault.CLIENT_KEY_MISMATCH)


def expires_at(pem: str, after: datetime | None = None) -> datetime | None:
    """Return when the first of some certificates expires, if they can be read.

    Those that expired before `after` do not count while there is another.
    """
    try:
        certificates = _certificates(pem.encode(), Fault.CA_INVALID)
    except CertificateError:
        return None
    dates = sorted(certificate.not_valid_after_utc for certificate in certificates)
    return next((date for date in dates if after is None or date > after), dates[-1])


def _certificates(data: bytes, fault: Fault) -> list[x509.Certificate]:
    """Return the certificates in a file, at least one; raises CertificateError."""
    if len(data) > MAX_SIZE:
        raise CertificateError(fault)
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificates(data)
        return [x509.load_der_x509_certificate(data)]
    except ValueError as err:
        raise CertificateError(fault) from err


def _load_key(data: bytes, password: bytes | None) -> PrivateKeyTypes:
    """Return the key in a file; raises TypeError where it has a password."""
    if len(data) > MAX_SIZE:
        raise ValueError("A key is not as large as that")
    if b"-----BEGIN" in data:
        return load_pem_private_key(data, password)
    return load_der_private_key(data, password)


def _pem(certificates: Iterable[x509.Certificate]) -> str:
    """Return certificates as text."""
    return "".join(
        certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates
    )
