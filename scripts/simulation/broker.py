"""MQTT brokers on the loopback address: a real Mosquitto, or one written in Python."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
import hashlib
import importlib
import logging
import os
from pathlib import Path
from typing import Any, Final, Protocol, Self, override

from .processes import LOOPBACK, SimulationError, free_port, is_port_free
from .servers import Server

ITERATIONS: Final = 101  # mosquitto_passwd's own default
SALT_BYTES: Final = 12


class Broker(Protocol):
    """What both brokers have in common."""

    name: str
    port: int
    protocol: str  # for the form of BLE Bridge

    async def __aenter__(self) -> Self:
        """Start the broker, and wait until it accepts connections."""

    async def __aexit__(self, *_: object) -> None:
        """Stop the broker."""


def password_line(username: str, password: str) -> str:
    """Return a line of Mosquitto's password file: PBKDF2 with SHA-512, kind $7$."""
    salt = os.urandom(SALT_BYTES)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return (
        f"{username}:$7${ITERATIONS}${b64encode(salt).decode()}"
        f"${b64encode(key).decode()}\n"
    )


class Mosquitto(Server):
    """A Mosquitto process with a configuration of its own.

    Without `users`, everybody may connect.
    """

    name = "Mosquitto"
    program = "mosquitto"
    protocol = "auto"

    def __init__(
        self,
        port: int = 0,
        config_lines: Sequence[str] = (),
        users: Mapping[str, str] | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        """Describe the broker.

        `config_lines` follow the listener, so they may concern it or all; `users`
        maps names to passwords; with a certificate and its key (PEM) the listener
        speaks TLS; the directory, by default a temporary one, must exist.
        """
        super().__init__(port, directory)
        self._config_lines = config_lines
        self._users = users or {}
        self._certificate = certificate
        self._key = key

    @override
    def _arguments(self) -> list[str | Path]:
        configuration = self._directory / "mosquitto.conf"
        configuration.write_text("\n".join(self._configuration()), encoding="utf-8")
        return ["-c", configuration]

    def _configuration(self) -> list[str]:
        """Return the lines of the configuration file, and write what it names."""
        lines = [
            f"listener {self.port} {LOOPBACK}",
            f"allow_anonymous {'false' if self._users else 'true'}",
        ]
        if os.geteuid() == 0:
            # Else it becomes the user mosquitto, who may not read our directory.
            lines.insert(0, "user root")
        if self._users:
            passwords = self._directory / "passwords"
            passwords.write_text(
                "".join(password_line(*user) for user in self._users.items()),
                encoding="utf-8",
            )
            passwords.chmod(0o600)
            lines.append(f"password_file {passwords}")
        if self._certificate and self._key:
            lines += [f"certfile {self._certificate}", f"keyfile {self._key}"]
        return [*lines, *self._config_lines, ""]


class EmbeddedBroker:
    """A broker in this process, for a machine without one: MQTT 3.1.1 only.

    It misreads MQTT 5's will and then waits for more, instead of refusing the
    version, so that a client which tries 5 first only finds out by a timeout.
    """

    name = "an embedded broker"
    protocol = "3.1.1"

    def __init__(self, port: int = 0) -> None:
        """Describe the broker."""
        self.port = port or free_port()
        self._broker: Any = None

    async def __aenter__(self) -> Self:
        """Start the broker, and wait until it accepts connections."""
        if not is_port_free(self.port):
            raise SimulationError(f"Port {self.port} for the MQTT broker is in use.")
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        # Imported by name: the package has no types, and takes its time to load.
        amqtt = importlib.import_module("amqtt.broker")
        self._broker = amqtt.Broker(
            {
                "listeners": {
                    "default": {"type": "tcp", "bind": f"{LOOPBACK}:{self.port}"}
                },
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {
                        "allow_anonymous": True
                    }
                },
            }
        )
        await self._broker.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the broker."""
        await self._broker.shutdown()
