import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Payload(_message.Message):
    __slots__ = ("data", "created_at", "device", "address", "scanner_id", "rssi", "is_resend")
    DATA_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SCANNER_ID_FIELD_NUMBER: _ClassVar[int]
    RSSI_FIELD_NUMBER: _ClassVar[int]
    IS_RESEND_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedCompositeFieldContainer[Datum]
    created_at: _timestamp_pb2.Timestamp
    device: str
    address: str
    scanner_id: str
    rssi: int
    is_resend: bool
    def __init__(self, data: _Optional[_Iterable[_Union[Datum, _Mapping]]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., device: _Optional[str] = ..., address: _Optional[str] = ..., scanner_id: _Optional[str] = ..., rssi: _Optional[int] = ..., is_resend: _Optional[bool] = ...) -> None: ...

class Datum(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: Value
    def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("string_value", "int_value", "uint_value", "double_value", "bool_value", "json_value", "event_value")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    UINT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    JSON_VALUE_FIELD_NUMBER: _ClassVar[int]
    EVENT_VALUE_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    int_value: int
    uint_value: int
    double_value: float
    bool_value: bool
    json_value: str
    event_value: str
    def __init__(self, string_value: _Optional[str] = ..., int_value: _Optional[int] = ..., uint_value: _Optional[int] = ..., double_value: _Optional[float] = ..., bool_value: _Optional[bool] = ..., json_value: _Optional[str] = ..., event_value: _Optional[str] = ...) -> None: ...

class Alerts(_message.Message):
    __slots__ = ("alerts", "created_at", "device", "address", "is_resend")
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IS_RESEND_FIELD_NUMBER: _ClassVar[int]
    alerts: _containers.RepeatedCompositeFieldContainer[Alert]
    created_at: _timestamp_pb2.Timestamp
    device: str
    address: str
    is_resend: bool
    def __init__(self, alerts: _Optional[_Iterable[_Union[Alert, _Mapping]]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., device: _Optional[str] = ..., address: _Optional[str] = ..., is_resend: _Optional[bool] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("name", "audiences", "started_at", "ended_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    audiences: _containers.RepeatedScalarFieldContainer[str]
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., audiences: _Optional[_Iterable[str]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Errors(_message.Message):
    __slots__ = ("errors", "created_at", "device", "address", "is_resend")
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    IS_RESEND_FIELD_NUMBER: _ClassVar[int]
    errors: _containers.RepeatedCompositeFieldContainer[Error]
    created_at: _timestamp_pb2.Timestamp
    device: str
    address: str
    is_resend: bool
    def __init__(self, errors: _Optional[_Iterable[_Union[Error, _Mapping]]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., device: _Optional[str] = ..., address: _Optional[str] = ..., is_resend: _Optional[bool] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("created_at", "name", "tags", "body")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    created_at: _timestamp_pb2.Timestamp
    name: str
    tags: _containers.ScalarMap[str, str]
    body: str
    def __init__(self, created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., name: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., body: _Optional[str] = ...) -> None: ...

class Connectivity(_message.Message):
    __slots__ = ("connection_id", "created_at", "device", "address", "status", "is_resend")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Connectivity.Status]
        CONNECTED: _ClassVar[Connectivity.Status]
        DISCONNECTED: _ClassVar[Connectivity.Status]
    UNKNOWN: Connectivity.Status
    CONNECTED: Connectivity.Status
    DISCONNECTED: Connectivity.Status
    CONNECTION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    IS_RESEND_FIELD_NUMBER: _ClassVar[int]
    connection_id: str
    created_at: _timestamp_pb2.Timestamp
    device: str
    address: str
    status: Connectivity.Status
    is_resend: bool
    def __init__(self, connection_id: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., device: _Optional[str] = ..., address: _Optional[str] = ..., status: _Optional[_Union[Connectivity.Status, str]] = ..., is_resend: _Optional[bool] = ...) -> None: ...

class Advertisement(_message.Message):
    __slots__ = ("scanner_id", "address", "manufacturer_data", "service_uuids", "local_name", "service_data", "tx_power", "connectable", "address_type", "raw", "rssi", "timestamp", "is_resend")
    class AddressType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Advertisement.AddressType]
        PUBLIC: _ClassVar[Advertisement.AddressType]
        RANDOM: _ClassVar[Advertisement.AddressType]
    UNKNOWN: Advertisement.AddressType
    PUBLIC: Advertisement.AddressType
    RANDOM: Advertisement.AddressType
    class ManufacturerDataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    class ServiceDataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SCANNER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MANUFACTURER_DATA_FIELD_NUMBER: _ClassVar[int]
    SERVICE_UUIDS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_DATA_FIELD_NUMBER: _ClassVar[int]
    TX_POWER_FIELD_NUMBER: _ClassVar[int]
    CONNECTABLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_TYPE_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    RSSI_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    IS_RESEND_FIELD_NUMBER: _ClassVar[int]
    scanner_id: str
    address: str
    manufacturer_data: _containers.ScalarMap[int, bytes]
    service_uuids: _containers.RepeatedScalarFieldContainer[str]
    local_name: str
    service_data: _containers.ScalarMap[str, bytes]
    tx_power: int
    connectable: bool
    address_type: Advertisement.AddressType
    raw: bytes
    rssi: int
    timestamp: _timestamp_pb2.Timestamp
    is_resend: bool
    def __init__(self, scanner_id: _Optional[str] = ..., address: _Optional[str] = ..., manufacturer_data: _Optional[_Mapping[int, bytes]] = ..., service_uuids: _Optional[_Iterable[str]] = ..., local_name: _Optional[str] = ..., service_data: _Optional[_Mapping[str, bytes]] = ..., tx_power: _Optional[int] = ..., connectable: _Optional[bool] = ..., address_type: _Optional[_Union[Advertisement.AddressType, str]] = ..., raw: _Optional[bytes] = ..., rssi: _Optional[int] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., is_resend: _Optional[bool] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("scanner_id", "timestamp", "status", "uptime_seconds", "metrics", "connection", "is_resend")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Heartbeat.Status]
        RUNNING: _ClassVar[Heartbeat.Status]
        OFFLINE: _ClassVar[Heartbeat.Status]
        STOPPED: _ClassVar[Heartbeat.Status]
    UNKNOWN: Heartbeat.Status
    RUNNING: Heartbeat.Status
    OFFLINE: Heartbeat.Status
    STOPPED: Heartbeat.Status
    class Metrics(_message.Message):
        __slots__ = ("devices", "advertisements_received", "advertisements_published", "advertisements_dropped", "advertisements_filtered")
        DEVICES_FIELD_NUMBER: _ClassVar[int]
        ADVERTISEMENTS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
        ADVERTISEMENTS_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
        ADVERTISEMENTS_DROPPED_FIELD_NUMBER: _ClassVar[int]
        ADVERTISEMENTS_FILTERED_FIELD_NUMBER: _ClassVar[int]
        devices: int
        advertisements_received: int
        advertisements_published: int
        advertisements_dropped: int
        advertisements_filtered: int
        def __init__(self, devices: _Optional[int] = ..., advertisements_received: _Optional[int] = ..., advertisements_published: _Optional[int] = ..., advertisements_dropped: _Optional[int] = ..., advertisements_filtered: _Optional[int] = ...) -> None: ...
    class Connection(_message.Message):
        __slots__ = ("connected", "messages_sent", "reconnects", "last_error")
        CONNECTED_FIELD_NUMBER: _ClassVar[int]
        MESSAGES_SENT_FIELD_NUMBER: _ClassVar[int]
        RECONNECTS_FIELD_NUMBER: _ClassVar[int]
        LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
        connected: bool
        messages_sent: int
        reconnects: int
        last_error: str
        def __init__(self, connected: _Optional[bool] = ..., messages_sent: _Optional[int] = ..., reconnects: _Optional[int] = ..., last_error: _Optional[str] = ...) -> None: ...
    SCANNER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    IS_RESEND_FIELD_NUMBER: _ClassVar[int]
    scanner_id: str
    timestamp: _timestamp_pb2.Timestamp
    status: Heartbeat.Status
    uptime_seconds: int
    metrics: Heartbeat.Metrics
    connection: Heartbeat.Connection
    is_resend: bool
    def __init__(self, scanner_id: _Optional[str] = ..., timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., status: _Optional[_Union[Heartbeat.Status, str]] = ..., uptime_seconds: _Optional[int] = ..., metrics: _Optional[_Union[Heartbeat.Metrics, _Mapping]] = ..., connection: _Optional[_Union[Heartbeat.Connection, _Mapping]] = ..., is_resend: _Optional[bool] = ...) -> None: ...
