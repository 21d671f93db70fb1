"""What is entered in the form of a destination: what is common to all kinds."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from homeassistant.util import dt as dt_util

from ..certificates import CertificateError
from ..const import CONF_DELIVERY
from ..forms import plain_number
from ..settings import delivery_data


class InputError(Exception):
    """Something in a section of the form that cannot be used."""


@dataclass(slots=True)
class Entered:
    """What a form says of a destination, what is wrong with it, and what the errors name."""

    data: dict[str, Any]
    errors: dict[str, str] = field(default_factory=dict)
    placeholders: dict[str, str] = field(default_factory=lambda: {"date": ""})

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Take note of what cannot be used, where that is raised in here."""
        try:
            yield
        except CertificateError as err:
            self.errors["base"] = err.fault.value
            if err.date is not None:
                date = dt_util.as_local(err.date).date()
                self.placeholders["date"] = date.isoformat()
        except InputError as err:
            self.errors["base"] = str(err)


def entered_delivery(
    user_input: Mapping[str, Any], previous: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is said of delivery; who fills in the form by hand may leave it out."""
    said = user_input.get(CONF_DELIVERY) or delivery_data(previous)
    return {key: plain(value) for key, value in said.items()}


def plain(value: Any) -> Any:
    """Return a number as it would be written, and all else as it is."""
    return plain_number(value) if isinstance(value, float) else value


def port(number: float) -> int | None:
    """Return the port that a number is, if it is one."""
    return int(number) if 1 <= number <= 65535 and number == int(number) else None


def without_brackets(host: str) -> str:
    """Return a host as it was entered, an IPv6 address without its brackets."""
    return host.strip().removeprefix("[").removesuffix("]")


def is_host(host: str) -> bool:
    """Tell whether a text can be the name or the address of a machine, and is no more."""
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError:
            return False
        return True
    return (
        0 < len(host) <= 253
        and host.isprintable()
        and set(host).isdisjoint("/ @?#\\[]")
    )


def is_server_name(name: str) -> bool:
    """Tell whether TLS can ask for a name."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return is_host(name) and not name.startswith(".")
