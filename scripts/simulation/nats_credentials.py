"""Keys, tokens and credentials files of NATS, as its own tools make them.

Formats: https://github.com/nats-io/nkeys and NATS' ADR-14, "JWT library free jwt user
generation" (https://github.com/nats-io/nats-architecture-and-design).
"""

from base64 import b32encode, urlsafe_b64encode
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import IntEnum
import hashlib
import json
from pathlib import Path
import time
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED: Final = 18 << 3  # Becomes an S
# Without limits, but JetStream only where an account is given space for it
_UNLIMITED: Final = dict.fromkeys(
    ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
)
_JETSTREAM: Final = dict.fromkeys(
    ("mem_storage", "disk_storage", "streams", "consumer"), -1
)


class KeyKind(IntEnum):
    """Whose key it is: the first letter of what is public, and the second of the seed."""

    ACCOUNT = 0
    OPERATOR = 14 << 3
    USER = 20 << 3


class NatsKey:
    """An Ed25519 key in the form of NATS, an NKey."""

    def __init__(self, kind: KeyKind = KeyKind.USER) -> None:
        """Make a new key."""
        self._private = Ed25519PrivateKey.generate()
        self.public = _encode(
            bytes([kind]) + self._private.public_key().public_bytes_raw()
        )
        # Five bits of what it is, eight of whose it is, three of nothing.
        head = (_SEED | kind >> 5, (kind & 31) << 3)
        self.seed = _encode(bytes(head) + self._private.private_bytes_raw())

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a JSON Web Token with this key as its issuer."""
        identifier = hashlib.sha256(json.dumps(claims).encode()).digest()
        parts = (
            {"typ": "JWT", "alg": "ed25519-nkey"},
            {
                "jti": b32encode(identifier).decode().rstrip("="),
                "iat": int(time.time()),
                "iss": self.public,
                **claims,
            },
        )
        text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{text}.{_base64(self._private.sign(text.encode()))}"


class NatsOperator:
    """Whom a server trusts: an operator, with an account whose users need no other word.

    A server knows of no user; each shows a token that the account has signed, and
    signs what the server asks. `NatsServer(operator=…)`.
    """

    def __init__(self) -> None:
        """Make the keys of an operator and of its two accounts."""
        self._operator = NatsKey(KeyKind.OPERATOR)
        self._account = NatsKey(KeyKind.ACCOUNT)
        self._system = NatsKey(KeyKind.ACCOUNT)

    def configuration(self) -> dict[str, Any]:
        """Return the settings of a server that trusts this operator."""
        trusted = {"type": "operator", "system_account": self._system.public}
        return {
            "operator": self._operator.sign(
                _claims(self._operator, "operator", trusted)
            ),
            "resolver": "MEMORY",
            "resolver_preload": {
                self._account.public: self._sign_account(
                    self._account, "house", _UNLIMITED | _JETSTREAM
                ),
                self._system.public: self._sign_account(
                    self._system, "system", _UNLIMITED
                ),
            },
        }

    def credentials(
        self,
        user: str = "bridge",
        *,
        publish_deny: Sequence[str] = (),
        expires: datetime | None = None,
    ) -> str:
        """Return a new user's credentials: the text of a .creds file."""
        key = NatsKey()
        permissions = {"pub": {"deny": list(publish_deny)} if publish_deny else {}}
        limits = dict.fromkeys(("subs", "data", "payload"), -1)
        claims = _claims(
            key, user, {"type": "user", "sub": {}, **permissions, **limits}
        )
        if expires:
            claims["exp"] = int(expires.timestamp())
        return (
            "-----BEGIN NATS USER JWT-----\n"
            f"{self._account.sign(claims)}\n"
            "------END NATS USER JWT------\n\n"
            "-----BEGIN USER NKEY SEED-----\n"
            f"{key.seed}\n"
            "------END USER NKEY SEED------\n"
        )

    def write_credentials(self, path: Path, user: str = "bridge") -> Path:
        """Write a new user's credentials, and return where."""
        path.write_text(self.credentials(user), encoding="ascii")
        path.chmod(0o600)
        return path

    def _sign_account(self, key: NatsKey, name: str, limits: Mapping[str, int]) -> str:
        details = {"type": "account", "limits": {"wildcards": True, **limits}}
        return self._operator.sign(_claims(key, name, details))


def _claims(key: NatsKey, name: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a token says about a key."""
    return {"sub": key.public, "name": name, "nats": {"version": 2, **details}}


def _encode(data: bytes) -> str:
    """Return a key as text: base 32, with a CRC-16 (XMODEM) at the end."""
    return (
        b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little"))
        .decode()
        .rstrip("=")
    )


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
