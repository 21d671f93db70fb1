"""Constants of BLE Bridge."""

from enum import StrEnum
from typing import Final

DOMAIN: Final = "ble_bridge"
MANUFACTURER: Final = "BLE Bridge"
SUBENTRY_DESTINATION: Final = "destination"
SUBENTRY_DEVICE: Final = "device"
SUBENTRY_MONITOR: Final = "monitor"
EVENT_ALERT: Final = "ble_bridge_alert"
EVENT_RELAY: Final = "ble_bridge_relay"

CONF_ADVANCED: Final = "advanced"
CONF_BRIDGE_ID: Final = "bridge_id"
CONF_BROKER: Final = "broker"
CONF_CLEAN_SESSION: Final = "clean_session"
CONF_KIND: Final = "kind"
CONF_KEEPALIVE: Final = "keepalive"
CONF_QOS: Final = "qos"
CONF_TLS: Final = "tls"
CONF_TOPIC_BASE: Final = "topic_base"

# The connection of a destination
CONF_ALPN: Final = "alpn"
CONF_CA: Final = "ca"
CONF_CA_CERTIFICATE: Final = "ca_certificate"
CONF_CLIENT_CERTIFICATE: Final = "client_certificate"
CONF_CLIENT_KEY: Final = "client_key"
CONF_CLIENT_KEY_PASSWORD: Final = "client_key_password"  # noqa: S105
CONF_CONNECT_TIMEOUT: Final = "connect_timeout"
CONF_DISCONNECT_TIMEOUT: Final = "disconnect_timeout"
CONF_FIRST_DELAY: Final = "first_delay"
CONF_LONGEST_DELAY: Final = "longest_delay"
CONF_MESSAGE_EXPIRY: Final = "message_expiry"
CONF_SECURITY: Final = "security"
CONF_SERVER_NAME: Final = "server_name"
CONF_SESSION_EXPIRY: Final = "session_expiry"
CONF_TRANSPORT: Final = "transport"
CONF_UNIX_PATH: Final = "unix_path"
CONF_USE_CLIENT_CERTIFICATE: Final = "use_client_certificate"
CONF_USER_PROPERTIES: Final = "user_properties"
CONF_WEBSOCKET_HEADERS: Final = "websocket_headers"
CONF_WEBSOCKET_PATH: Final = "websocket_path"

# NATS
CONF_AUTHENTICATION: Final = "authentication"
CONF_CLIENT_NAME: Final = "client_name"
CONF_CREDENTIALS: Final = "credentials"
CONF_DUPLICATE_WINDOW: Final = "duplicate_window"
CONF_JETSTREAM: Final = "jetstream"
CONF_MAX_MEGABYTES: Final = "max_megabytes"
CONF_MAX_MESSAGES: Final = "max_messages"
CONF_MESSAGES: Final = "messages"
CONF_METHOD: Final = "method"
CONF_NAMESPACE: Final = "namespace"
CONF_PAYLOAD: Final = "payload"
CONF_RECORDS: Final = "records"
CONF_REPLICAS: Final = "replicas"
CONF_RETENTION: Final = "retention"
CONF_SEED: Final = "seed"
CONF_SERVERS: Final = "servers"
CONF_STORAGE: Final = "storage"
CONF_STORED: Final = "stored"
DEFAULT_NAMESPACE: Final = "ble"
# What an InfluxDB destination has beside
CONF_API: Final = "api"
CONF_BATCH_KILOBYTES: Final = "batch_kilobytes"
CONF_BATCH_LINES: Final = "batch_lines"
CONF_BATCH_SECONDS: Final = "batch_seconds"
CONF_BUCKET: Final = "bucket"
CONF_GZIP: Final = "gzip"
CONF_MEASUREMENT: Final = "measurement"
CONF_ORGANIZATION: Final = "organization"
CONF_RETENTION_POLICY: Final = "retention_policy"
CONF_SIGNALS: Final = "signals"

# Delivery of a destination, beside the policy of each kind of record
CONF_BUFFER_MEGABYTES: Final = "buffer_megabytes"
CONF_BUFFER_RECORDS: Final = "buffer_records"
CONF_DELIVERY: Final = "delivery"
CONF_DRAIN_RATE: Final = "drain_rate"
CONF_MAX_AGE_HOURS: Final = "max_age_hours"
CONF_MAX_IN_FLIGHT: Final = "max_in_flight"
CONF_MAX_TRIES: Final = "max_tries"
CONF_PUBLISH_TIMEOUT: Final = "publish_timeout"
CONF_STORE_MEGABYTES: Final = "store_megabytes"
CONF_STORE_RECORDS: Final = "store_records"

CONF_ALLOW: Final = "allow"
CONF_DENY: Final = "deny"
CONF_ADDRESSES: Final = "addresses"
CONF_COMPANY_IDS: Final = "company_ids"
CONF_EXCLUDED_SCANNERS: Final = "excluded_scanners"
CONF_MINIMUM_RSSI: Final = "minimum_rssi"
CONF_NAMES: Final = "names"
CONF_SCANNER_IDS: Final = "scanner_ids"
CONF_SERVICE_UUIDS: Final = "service_uuids"

# Devices
CONF_ADDRESS: Final = "address"
CONF_ALERTS: Final = "alerts"
CONF_ALIAS: Final = "alias"
CONF_AUTOMATIC: Final = "automatic"
CONF_FORMATS: Final = "formats"
CONF_IRK: Final = "irk"
CONF_KEY: Final = "key"
CONF_MINIMUM_INTERVAL: Final = "minimum_interval"
CONF_PATH_LOSS: Final = "path_loss"
CONF_REFERENCE_RSSI: Final = "reference_rssi"
CONF_REMOVE_KEY: Final = "remove_key"
CONF_RSSI_CHANGE: Final = "rssi_change"
CONF_SHAPING: Final = "shaping"
CONF_SIGNAL: Final = "signal"
CONF_TIMEOUT: Final = "timeout"
CONF_UNCHANGED_INTERVAL: Final = "unchanged_interval"

# Monitors, beside the patterns of each kind of message
CONF_ANOMALIES: Final = "anomalies"
CONF_AVERAGE: Final = "average"
CONF_CRITICAL_RELAYS: Final = "critical_relays"
CONF_DEAD_LETTER_TOPIC: Final = "dead_letter_topic"
CONF_DESTINATION: Final = "destination"
CONF_DEVIATIONS: Final = "deviations"
CONF_LIMITS: Final = "limits"
CONF_MARK_STALE: Final = "mark_stale"
CONF_MAX_DEVICES: Final = "max_devices"
CONF_MAX_KILOBYTES: Final = "max_kilobytes"
CONF_NEEDS_TIME: Final = "needs_time"
CONF_PRESET: Final = "preset"
CONF_SHARE_GROUP: Final = "share_group"
CONF_WINDOW: Final = "window"

# Layouts of a destination
CONF_ENABLED: Final = "enabled"
CONF_FIELDS: Final = "fields"
CONF_RAW: Final = "raw"
CONF_VALUES: Final = "values"
DEFAULT_FIELDS_BASE: Final = "telemetry"
DEFAULT_VALUES_BASE: Final = "iiot"

DEFAULT_NAME: Final = "BLE Bridge"
DEFAULT_PORT: Final = 1883
DEFAULT_PORT_TLS: Final = 8883
DEFAULT_TOPIC_BASE: Final = "ble"
DEFAULT_WEBSOCKET_PATH: Final = "/mqtt"

HEARTBEAT_INTERVAL: Final = 60
STATISTICS_INTERVAL: Final = 30


class Broker(StrEnum):
    """Where the settings of a destination's broker come from."""

    CUSTOM = "custom"
    HOME_ASSISTANT = "home_assistant"


class Authorities(StrEnum):
    """Whose certificates of brokers are trusted."""

    SYSTEM = "system"
    OWN = "own"


class Signals(StrEnum):
    """Of whose advertisements the signal strength is written."""

    NONE = "none"
    DEVICES = "devices"
    ALL = "all"


class Transport(StrEnum):
    """What carries the connection to a broker."""

    TCP = "tcp"
    WEBSOCKETS = "websockets"
    UNIX = "unix"


class Authentication(StrEnum):
    """How a bridge shows a NATS server who it is."""

    NONE = "none"
    PASSWORD = "password"  # noqa: S105
    TOKEN = "token"  # noqa: S105
    NKEY = "nkey"
    CREDENTIALS = "credentials"


class PayloadFormat(StrEnum):
    """How records are written."""

    PROTOBUF = "protobuf"
    JSON = "json"
