"""Print what BLE Bridge says on NATS, a line for each message.

    pip install nats-py 'protobuf>=7.35.1'
    python nats_consumer.py --server nats://localhost:4222 --namespace ble

For a destination whose payloads are protobuf. `telemetry_pb2.py` is generated from
`telemetry.proto`; put it beside your own program.
"""

import argparse
import asyncio
import contextlib
from pathlib import Path
import sys

from google.protobuf.message import DecodeError
import nats

sys.path.append(str(Path(__file__).parents[1] / "protobuf"))
import telemetry_pb2 as telemetry

type Telemetry = (
    telemetry.Payload
    | telemetry.Alerts
    | telemetry.Errors
    | telemetry.Connectivity
    | telemetry.Advertisement
    | telemetry.Heartbeat
)


def decode(namespace: str, subject: str, payload: bytes) -> Telemetry | None:
    """Return the message of a subject, or None of one that is not known here.

    Raises DecodeError for what is no protobuf.
    """
    message: Telemetry
    match subject.removeprefix(f"{namespace}.").split("."):
        case [_, "data"]:
            message = telemetry.Payload()
        case [_, "alerts"]:
            message = telemetry.Alerts()
        case [_, "errors"]:
            message = telemetry.Errors()
        case [_, "connectivity"]:
            message = telemetry.Connectivity()
        case ["raw", _, _]:
            message = telemetry.Advertisement()
        case ["scanner", _, "status"]:
            message = telemetry.Heartbeat()
        case _:
            return None
    message.ParseFromString(payload)
    return message


def describe(message: Telemetry) -> str:
    """Return a message as a line to read."""
    match message:
        case telemetry.Payload():
            said = ", ".join(describe_field(datum) for datum in message.data)
            words = f"said {said}" if said else "was heard"
            return f"{message.device} {words}{describe_signal(message)}"
        case telemetry.Alerts():
            return "; ".join(
                f"{message.device}: alert {alert.name!r} "
                f"{'ended' if alert.HasField('ended_at') else 'started'}"
                for alert in message.alerts
            )
        case telemetry.Errors():
            return "; ".join(
                f"{message.device}: error {error.name!r}: {error.body}"
                for error in message.errors
            )
        case telemetry.Connectivity():
            status = telemetry.Connectivity.Status.Name(message.status)
            return f"{message.device} is {status.lower()}"
        case telemetry.Advertisement():
            data = [
                *(f"{i:#06x}={v.hex()}" for i, v in message.manufacturer_data.items()),
                *(f"{u}={v.hex()}" for u, v in message.service_data.items()),
            ]
            name = f" {message.local_name!r}" if message.HasField("local_name") else ""
            return " ".join(
                (f"{message.address}{name}{describe_signal(message)}", *data)
            )
        case telemetry.Heartbeat():
            status = telemetry.Heartbeat.Status.Name(message.status)
            return (
                f"scanner {message.scanner_id} is {status.lower()}, "
                f"hears {message.metrics.devices} devices"
            )


def when(message: Telemetry) -> str:
    """Return the time of a message, as in JSON."""
    if isinstance(message, telemetry.Advertisement | telemetry.Heartbeat):
        return str(message.timestamp.ToJsonString())
    return str(message.created_at.ToJsonString())


def describe_field(datum: telemetry.Datum) -> str:
    """Return a field of a device with its value, or what happened."""
    kind = datum.value.WhichOneof("value")
    value = getattr(datum.value, kind) if kind else None
    mark = "!" if kind == "event_value" else ""
    return f"{datum.key}={value!r}{mark}"


def describe_signal(message: telemetry.Payload | telemetry.Advertisement) -> str:
    """Return who heard a packet, and how strong where that is known."""
    strength = f"{message.rssi} dBm, " if message.HasField("rssi") else ""
    return f" ({strength}{message.scanner_id})"


async def consume(arguments: argparse.Namespace) -> None:
    """Print messages until there were enough of them."""
    namespace = arguments.namespace

    async def report(error: Exception) -> None:
        print(f"error: {error!r}", file=sys.stderr, flush=True)

    client = await nats.connect(
        arguments.server,
        name="BLE Bridge consumer",
        user_credentials=arguments.credentials,
        max_reconnect_attempts=-1,
        error_cb=report,
    )
    try:
        subscription = await client.subscribe(f"{namespace}.>")
        await client.flush()
        print(f"listening to {namespace}.>", file=sys.stderr, flush=True)
        left = arguments.count
        async for received in subscription.messages:
            try:
                message = decode(namespace, received.subject, received.data)
            except DecodeError:
                print(
                    f"{received.subject} is no protobuf: is the destination set to JSON?",
                    file=sys.stderr,
                    flush=True,
                )
                continue
            if message is None:
                continue
            again = " (again)" if message.is_resend else ""
            print(
                f"{when(message)} {received.subject}: {describe(message)}{again}",
                flush=True,
            )
            left -= 1
            if left == 0:
                break
    finally:
        await client.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Print what BLE Bridge says on NATS.")
    parser.add_argument("--server", default="nats://localhost:4222")
    parser.add_argument("--namespace", default="ble", help="the destination's")
    parser.add_argument("--credentials", metavar="FILE", help="a .creds file")
    parser.add_argument("--count", type=int, default=0, help="end after so many")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(consume(parser.parse_args()))


if __name__ == "__main__":
    main()
