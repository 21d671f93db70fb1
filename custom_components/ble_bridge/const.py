"""Constants of BLE Bridge."""

from enum import StrEnum
from typing import Final

DOMAIN: Final = "ble_bridge"
SUBENTRY_DESTINATION: Final = "destination"

CONF_ADVANCED: Final = "advanced"
CONF_BRIDGE_ID: Final = "bridge_id"
CONF_BROKER: Final = "broker"
CONF_CLEAN_SESSION: Final = "clean_session"
CONF_KEEPALIVE: Final = "keepalive"
CONF_QOS: Final = "qos"
CONF_TLS: Final = "tls"
CONF_TOPIC_BASE: Final = "topic_base"

CONF_ALLOW: Final = "allow"
CONF_DENY: Final = "deny"
CONF_ADDRESSES: Final = "addresses"
CONF_COMPANY_IDS: Final = "company_ids"
CONF_EXCLUDED_SCANNERS: Final = "excluded_scanners"
CONF_MINIMUM_RSSI: Final = "minimum_rssi"
CONF_NAMES: Final = "names"
CONF_SCANNER_IDS: Final = "scanner_ids"
CONF_SERVICE_UUIDS: Final = "service_uuids"

DEFAULT_NAME: Final = "BLE Bridge"
DEFAULT_PORT: Final = 1883
DEFAULT_PORT_TLS: Final = 8883
DEFAULT_TOPIC_BASE: Final = "ble"

HEARTBEAT_INTERVAL: Final = 60
STATISTICS_INTERVAL: Final = 30


class Broker(StrEnum):
    """Where the settings of a destination's broker come from."""

    CUSTOM = "custom"
    HOME_ASSISTANT = "home_assistant"
