"""Certificates and keys as they are uploaded."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
import pytest

from custom_components.ble_bridge.certificates import (
    MAX_SIZE,
    CertificateError,
    Fault,
    check_pair,
    expires_at,
    read_ca,
    read_client_certificate,
    read_key,
)

from .forms import Authority, make_authority

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=3)
EARLIER = NOW - timedelta(days=3)
PASSWORD = "pass\u00e9word"
KEYS: list[PrivateKeyTypes] = [
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
    rsa.generate_private_key(65537, 2048),
]
GARBAGE = [
    b"",
    b"hello",
    b"\x00\xff" * 100,
    b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    b"-----BEGIN",
]


@pytest.fixture(name="authority", scope="module")
def authority_fixture(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority whose certificate is good for a day."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(name="lasting", scope="module")
def lasting_fixture(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority whose certificate is good for ten days."""
    return make_authority(tmp_path_factory.mktemp("lasting"), days=10)


def der(path: Path) -> bytes:
    """Return the certificate in a file as DER."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.public_bytes(Encoding.DER)


def test_ca(authority: Authority, lasting: Authority) -> None:
    """One certificate or several, as text or as bytes, and what stands around them."""
    one, two = authority.path.read_text(), lasting.path.read_text()
    assert read_ca(one.encode(), NOW) == one
    assert read_ca(der(authority.path), NOW) == one
    assert read_ca(f"Bag Attributes\n{one}\n# another\n{two}".encode(), NOW) == (
        one + two
    )
    # One of them has expired by then; the other has not.
    assert read_ca((one + two).encode(), LATER) == one + two


@pytest.mark.parametrize("data", [*GARBAGE, b"a" * (MAX_SIZE + 1)])
def test_not_a_certificate(data: bytes) -> None:
    """What is none is said of the right file."""
    for read, fault in (
        (read_ca, Fault.CA_INVALID),
        (read_client_certificate, Fault.CLIENT_CERTIFICATE_INVALID),
    ):
        with pytest.raises(CertificateError) as info:
            read(data, NOW)
        assert (info.value.fault, info.value.date) == (fault, None)


def test_key_in_place_of_a_certificate(authority: Authority) -> None:
    """The files were mixed up."""
    made = authority.issue("client")
    with pytest.raises(CertificateError, match="client_certificate_invalid"):
        read_client_certificate(made.key.read_bytes(), NOW)
    with pytest.raises(CertificateError, match="client_key_invalid"):
        read_key(made.path.read_bytes(), None)
    with pytest.raises(CertificateError, match="client_key_invalid"):
        read_key(made.path.read_bytes(), PASSWORD)


@pytest.mark.parametrize(
    ("now", "ca", "client", "days"),
    [
        (LATER, Fault.CA_OUTDATED, Fault.CLIENT_CERTIFICATE_OUTDATED, 1),
        (EARLIER, Fault.CA_EARLY, Fault.CLIENT_CERTIFICATE_EARLY, -2),
    ],
)
def test_not_valid_now(
    authority: Authority, now: datetime, ca: Fault, client: Fault, days: int
) -> None:
    """What has expired, or is not valid yet, tells when."""
    for path, read, fault in (
        (authority.path, read_ca, ca),
        (authority.issue("client").path, read_client_certificate, client),
    ):
        with pytest.raises(CertificateError) as info:
            read(path.read_bytes(), now)
        assert info.value.fault is fault
        assert info.value.date is not None
        expected = NOW + timedelta(days=days)
        assert abs(info.value.date - expected) < timedelta(hours=2)


def test_chain(authority: Authority, lasting: Authority) -> None:
    """A client certificate comes with those that signed it, and none may be expired."""
    own = lasting.issue("client", days=10).path.read_text()
    chain = own + authority.path.read_text()
    assert read_client_certificate(chain.encode(), NOW) == chain
    with pytest.raises(CertificateError, match="client_certificate_outdated"):
        read_client_certificate(chain.encode(), LATER)


def written(
    key: PrivateKeyTypes, encoding: Encoding, encryption: KeySerializationEncryption
) -> bytes:
    """Return a key as it stands in a file."""
    return key.private_bytes(encoding, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("key", KEYS, ids=["ec", "ed25519", "rsa"])
def test_key(key: PrivateKeyTypes, encoding: Encoding) -> None:
    """A key is kept without its password, whether it had one or not."""
    plain = written(key, encoding, NoEncryption())
    locked = written(key, encoding, BestAvailableEncryption(PASSWORD.encode()))
    expected = written(key, Encoding.PEM, NoEncryption()).decode()
    assert read_key(plain, None) == expected
    assert read_key(plain, PASSWORD) == expected  # One that is not needed does no harm
    assert read_key(locked, PASSWORD) == expected
    for password, fault in (
        (None, "client_key_locked"),
        ("", "client_key_locked"),
        ("wrong", "client_key_wrong_password"),
    ):
        with pytest.raises(CertificateError, match=fault):
            read_key(locked, password)


def test_key_as_openssl_wrote_it_once() -> None:
    """The older form of keys, with a password and without."""
    key = KEYS[2]
    for encryption, password in (
        (NoEncryption(), None),
        (BestAvailableEncryption(b"password"), "password"),
    ):
        old = key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption
        )
        assert b"RSA PRIVATE KEY" in old
        found = load_pem_private_key(read_key(old, password).encode(), None)
        assert isinstance(found, rsa.RSAPrivateKey)
        assert isinstance(key, rsa.RSAPrivateKey)
        assert found.private_numbers() == key.private_numbers()


@pytest.mark.parametrize("data", [*GARBAGE, b"a" * (MAX_SIZE + 1)])
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_not_a_key(data: bytes, password: str | None) -> None:
    """What is no key is none with a password either."""
    with pytest.raises(CertificateError, match="client_key_invalid"):
        read_key(data, password)


def test_pair(authority: Authority) -> None:
    """A key belongs to one certificate, which is the first of its file."""
    made, other = authority.issue("one"), authority.issue("other")
    chain = made.path.read_text() + authority.path.read_text()
    key = read_key(made.key.read_bytes(), None)
    # Both may stand in one file.
    both = made.path.read_bytes() + made.key.read_bytes()
    assert read_key(both, None) == key
    assert read_client_certificate(both, NOW) == made.path.read_text()
    check_pair(chain, key)
    for certificate in (other.path.read_text(), authority.path.read_text()):
        with pytest.raises(CertificateError, match="client_key_mismatch"):
            check_pair(certificate, key)
    with pytest.raises(CertificateError, match="client_key_mismatch"):
        check_pair(
            chain, read_key(written(KEYS[2], Encoding.PEM, NoEncryption()), None)
        )


def test_expires_at(authority: Authority, lasting: Authority) -> None:
    """The first that expires counts, and what cannot be read never does."""
    both = lasting.path.read_text() + authority.path.read_text()
    found = expires_at(both)
    assert found is not None
    assert abs(found - NOW - timedelta(days=1)) < timedelta(hours=2)
    # An old authority beside the new one is no matter, unless both are old.
    for after, days in ((LATER, 10), (NOW + timedelta(days=20), 10), (NOW, 1)):
        found = expires_at(both, after)
        assert found is not None
        assert abs(found - NOW - timedelta(days=days)) < timedelta(hours=2)
    assert expires_at("nonsense") is None
