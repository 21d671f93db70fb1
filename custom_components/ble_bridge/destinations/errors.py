"""What can go wrong between a destination and its broker."""

from enum import StrEnum


class Problem(StrEnum):
    """Why a destination has no connection, or does not deliver.

    Each is an error of the set-up form, a state of the sensor of the last error, and what
    the heartbeat says; the translations tell the user what to do.
    """

    CANNOT_RESOLVE = "cannot_resolve"
    CANNOT_CONNECT = "cannot_connect"
    NO_ANSWER = "no_answer"
    NOT_MQTT = "not_mqtt"
    NOT_NATS = "not_nats"
    NOT_INFLUXDB = "not_influxdb"
    BUCKET_MISSING = "bucket_missing"
    PROTOCOL_UNSUPPORTED = "protocol_unsupported"
    TLS_FAILED = "tls_failed"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NAME = "certificate_name"
    CLIENT_CERTIFICATE_REFUSED = "client_certificate_refused"
    INVALID_AUTH = "invalid_auth"
    CLIENT_ID_REFUSED = "client_id_refused"
    CLIENT_ID_TAKEN = "client_id_taken"
    SERVER_UNAVAILABLE = "server_unavailable"
    REFUSED = "refused"
    BROKER_MISSING = "broker_missing"
    JETSTREAM_MISSING = "jetstream_missing"
    STREAM_CONFLICT = "stream_conflict"
    CONNECTION_LOST = "connection_lost"
    REJECTED = "rejected"
    NOT_AUTHORIZED = "not_authorized"
    QUOTA_EXCEEDED = "quota_exceeded"
    TOO_LARGE = "too_large"
    FIELD_TYPE = "field_type"
    SHARING_UNSUPPORTED = "sharing_unsupported"
    TIMED_OUT = "timed_out"
    STORE_FAILED = "store_failed"
    STORE_CORRUPT = "store_corrupt"
    INVALID_DATA = "invalid_data"
    UNEXPECTED = "unexpected"


class LinesError(ValueError):
    """What should be line protocol, and is not."""


class ConnectError(Exception):
    """A connection that could not be made."""

    def __init__(self, problem: Problem) -> None:
        """Initialize with what was wrong."""
        super().__init__(problem.value)
        self.problem = problem
