"""NKeys and credentials of NATS.

Formats: https://github.com/nats-io/nkeys (a seed is base 32 of two bytes of prefix, the
Ed25519 seed, and a CRC-16), and the `.creds` file that NATS' tools write. `cryptography`
signs, which Home Assistant has anyway.
"""

from base64 import b32decode, b32encode, b64encode
import binascii
import re
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED: Final = 18 << 3  # Base 32 makes an S of it
_USER: Final = 20 << 3  # A U
_SEED_LENGTH: Final = 58
_JWT: Final = re.compile(
    r"-----BEGIN NATS USER JWT-----\s+([\w-]+\.[\w-]+\.[\w-]+)\s+-+END NATS USER JWT-+",
    re.ASCII,
)
_USER_SEED: Final = re.compile(
    r"-----BEGIN USER NKEY SEED-----\s+(\w+)\s+-+END USER NKEY SEED-+", re.ASCII
)


class UserKey(NamedTuple):
    """The key of a user: its public part as text, and what signs."""

    public: str
    private: Ed25519PrivateKey

    def sign(self, nonce: str) -> bytes:
        """Return what proves to a server that we have the key, in base 64."""
        return b64encode(self.private.sign(nonce.encode()))


def read_seed(seed: str) -> UserKey:
    """Return the key that a user's seed stands for; raises ValueError."""
    if len(seed) != _SEED_LENGTH:
        raise ValueError("Not a seed")
    data = b32decode(seed + "=" * (-len(seed) % 8))
    content, checksum = data[:-2], data[-2:]
    if _checksum(content) != checksum:
        raise ValueError("Not a seed: the checksum is wrong")
    # Five bits of what it is, eight of whose it is, three of nothing.
    kind = (content[0] & 7) << 5 | content[1] >> 3
    if content[0] & 0xF8 != _SEED or kind != _USER:
        raise ValueError("Not the seed of a user")
    private = Ed25519PrivateKey.from_private_bytes(content[2:])
    public = bytes((_USER,)) + private.public_key().public_bytes_raw()
    return UserKey(b32encode(public + _checksum(public)).decode().rstrip("="), private)


def read_credentials(text: str) -> tuple[str, str]:
    """Return the token and the seed in a `.creds` file; raises ValueError."""
    if (token := _JWT.search(text)) is None or (
        seed := _USER_SEED.search(text)
    ) is None:
        raise ValueError("Not a credentials file")
    read_seed(seed[1])
    return token[1], seed[1]


def _checksum(content: bytes) -> bytes:
    """Return a CRC-16 (XMODEM)."""
    return binascii.crc_hqx(content, 0).to_bytes(2, "little")
