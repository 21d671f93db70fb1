"""The kinds of destinations."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from ..const import CONF_KIND
from .influxdb import InfluxKind
from .kind import Kind
from .mqtt import MqttKind
from .nats import NatsKind


class KindName(StrEnum):
    """How the kinds are called in data, and in the steps of forms."""

    MQTT = "mqtt"
    NATS = "nats"
    INFLUXDB = "influxdb"

    @property
    def step(self) -> str:
        """Return the step of a flow that asks for it; `mqtt` alone is a discovery."""
        return f"to_{self}"


KINDS: Final[Mapping[KindName, Kind]] = {
    KindName.MQTT: MqttKind(),
    KindName.NATS: NatsKind(),
    KindName.INFLUXDB: InfluxKind(),
}


def kind_of(data: Mapping[str, Any]) -> Kind:
    """Return the kind of a destination; those that were set up first had no other."""
    return KINDS[kind_name(data)]


def kind_name(data: Mapping[str, Any]) -> KindName:
    """Return what the kind of a destination is called."""
    return KindName(data.get(CONF_KIND, KindName.MQTT))
