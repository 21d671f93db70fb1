"""A simulated BlueZ: local Bluetooth adapters on a private D-Bus, without a radio.

It answers what bleak's BlueZ backend and bluetooth-adapters ask (the D-Bus API of
https://github.com/bluez/bluez/tree/master/doc) and, on request, also plays the kernel's
management socket, the side channel on which advertisements arrive raw.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
import struct
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from bluetooth_data_tools import parse_advertisement_data
from dbus_fast import BusType, Message, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

from .esphome_proxy import Packet
from .processes import (
    MANAGEMENT_SOCKET,
    POLL_SECONDS,
    Process,
    SimulationError,
    find_program,
)

type Properties = dict[str, Variant]
type Interfaces = dict[str, Properties]

ADAPTER: Final = "org.bluez.Adapter1"
DEVICE: Final = "org.bluez.Device1"
OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
ACCEPTED_METHODS: Final = {
    "SetDiscoveryFilter",
    "StartDiscovery",
    "StopDiscovery",
    "RegisterMonitor",
    "UnregisterMonitor",
    "RemoveDevice",
}

# The kernel's management protocol, doc/mgmt-api.txt: header, events, commands.
HEADER: Final = struct.Struct("<HHH")  # event or command, controller, length
COMMAND_COMPLETE: Final = 0x0001
DEVICE_FOUND: Final = 0x0012
GET_CONNECTIONS: Final = 0x0015


def adapter_interfaces(address: str, *, passive: bool) -> Interfaces:
    """Return the D-Bus interfaces of an adapter."""
    interfaces: Interfaces = {
        ADAPTER: {
            "Address": Variant("s", address),
            "AddressType": Variant("s", "public"),
            "Name": Variant("s", "simulated"),
            "Alias": Variant("s", "simulated"),
            "Class": Variant("u", 0),
            "Powered": Variant("b", True),
            "Discoverable": Variant("b", False),
            "Pairable": Variant("b", False),
            "Discovering": Variant("b", False),
            "UUIDs": Variant("as", []),
            "Modalias": Variant("s", "usb:v1D6Bp0246d0540"),
            "Roles": Variant("as", ["central", "peripheral"]),
        },
        "org.bluez.LEAdvertisingManager1": {
            "ActiveInstances": Variant("y", 0),
            "SupportedInstances": Variant("y", 4),
        },
    }
    if passive:
        interfaces["org.bluez.AdvertisementMonitorManager1"] = {
            "SupportedMonitorTypes": Variant("as", ["or_patterns"]),
            "SupportedFeatures": Variant("as", []),
        }
    return interfaces


class SimulatedBluez:
    """The service org.bluez with its adapters, on the bus of a D-Bus daemon."""

    def __init__(
        self, bus_address: str, adapters: Sequence[str] = ("hci0",), *, passive: bool
    ) -> None:
        """Describe adapters, and whether they can scan passively."""
        self.environment = {"DBUS_SYSTEM_BUS_ADDRESS": bus_address}
        self.sent = 0
        self.adapters = {
            adapter: f"00:1A:7D:DA:71:{number:02X}"
            for number, adapter in enumerate(adapters, start=1)
        }
        self.kernel: SimulatedKernel | None = None
        self._bus = MessageBus(bus_address=bus_address, bus_type=BusType.SYSTEM)
        self._scanning: set[str] = set()
        self._objects: dict[str, Interfaces] = {
            "/org/bluez": {"org.bluez.AgentManager1": {}}
        }
        for adapter, address in self.adapters.items():
            self._objects[f"/org/bluez/{adapter}"] = adapter_interfaces(
                address, passive=passive
            )

    async def start(self) -> None:
        """Connect to the bus and take the name org.bluez."""
        await self._bus.connect()
        self._bus.add_message_handler(self._handle)
        reply = await self._bus.request_name("org.bluez")
        if reply is not RequestNameReply.PRIMARY_OWNER:
            raise SimulationError("Another BlueZ owns the simulated D-Bus.")

    def stop(self) -> None:
        """Leave the bus."""
        self._bus.disconnect()

    def ready(self, adapter: str = "hci0") -> bool:
        """Return whether Home Assistant scans with an adapter."""
        return f"/org/bluez/{adapter}" in self._scanning

    async def wait_ready(self, adapter: str = "hci0", timeout: float = 30.0) -> None:
        """Wait until Home Assistant scans with an adapter."""
        try:
            async with asyncio.timeout(timeout):
                while not self.ready(adapter):
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError(
                f"Home Assistant does not scan with {adapter}."
            ) from None

    def send(self, packets: Iterable[Packet], adapter: str = "hci0") -> None:
        """Let an adapter hear advertisements; a proxy's `send` takes the same."""
        for address, rssi, data, address_type in packets:
            if self.kernel:
                index = int(adapter.removeprefix("hci"))
                self.kernel.device_found(index, address, rssi, data, address_type)
            else:
                self._device_found(adapter, address, rssi, data, address_type)
            self.sent += 1

    def _device_found(
        self, adapter: str, address: str, rssi: int, data: bytes, address_type: int
    ) -> None:
        """Tell of a device as BlueZ does: a new object, later changed properties."""
        path = f"/org/bluez/{adapter}/dev_{address.replace(':', '_')}"
        advertised = parse_advertisement_data((data,))
        heard: Properties = {"RSSI": Variant("n", rssi)}
        if advertised.manufacturer_data:
            heard["ManufacturerData"] = Variant(
                "a{qv}",
                {
                    company: Variant("ay", value)
                    for company, value in advertised.manufacturer_data.items()
                },
            )
        if advertised.service_data:
            heard["ServiceData"] = Variant(
                "a{sv}",
                {
                    uuid: Variant("ay", value)
                    for uuid, value in advertised.service_data.items()
                },
            )
        if advertised.service_uuids:
            heard["UUIDs"] = Variant("as", advertised.service_uuids)
        if advertised.tx_power is not None:
            heard["TxPower"] = Variant("n", advertised.tx_power)
        if advertised.local_name:
            heard["Name"] = heard["Alias"] = Variant("s", advertised.local_name)
        if path in self._objects:
            self._change(path, DEVICE, heard)
            return
        self._objects[path] = {
            DEVICE: {
                "Address": Variant("s", address),
                "AddressType": Variant("s", ("public", "random")[address_type]),
                "Alias": Variant("s", address.replace(":", "-")),
                "Adapter": Variant("o", f"/org/bluez/{adapter}"),
                "Paired": Variant("b", False),
                "Bonded": Variant("b", False),
                "Trusted": Variant("b", False),
                "Blocked": Variant("b", False),
                "Connected": Variant("b", False),
                "ServicesResolved": Variant("b", False),
                "LegacyPairing": Variant("b", False),
                "UUIDs": Variant("as", []),
                **heard,
            }
        }
        self._signal(
            "/",
            OBJECT_MANAGER,
            "InterfacesAdded",
            "oa{sa{sv}}",
            [path, self._objects[path]],
        )

    def _change(self, path: str, interface: str, properties: Properties) -> None:
        """Change properties of an object, and tell of it."""
        self._objects[path][interface].update(properties)
        self._signal(
            path,
            PROPERTIES,
            "PropertiesChanged",
            "sa{sv}as",
            [interface, properties, []],
        )

    def _signal(
        self, path: str, interface: str, member: str, signature: str, body: list[Any]
    ) -> None:
        self._bus.send(Message.new_signal(path, interface, member, signature, body))

    def _handle(self, message: Message) -> Message | None:
        """Answer a method call; None leaves the message to the library."""
        if (
            message.message_type is not MessageType.METHOD_CALL
            or message.interface == "org.freedesktop.DBus.Peer"
        ):
            return None
        if message.member == "GetManagedObjects":
            return Message.new_method_return(message, "a{oa{sa{sv}}}", [self._objects])
        path, member = message.path or "", message.member or ""
        if message.interface == PROPERTIES and path in self._objects:
            return self._handle_properties(message, self._objects[path])
        if path in self._objects and member in ACCEPTED_METHODS:
            self._follow_scanning(path, member)
            return Message.new_method_return(message)
        return Message.new_error(
            message,
            "org.freedesktop.DBus.Error.UnknownMethod",
            f"{message.interface}.{member} is not simulated",
        )

    @staticmethod
    def _handle_properties(message: Message, interfaces: Interfaces) -> Message:
        """Answer a call of org.freedesktop.DBus.Properties."""
        match message.member, message.body:
            case "GetAll", [interface]:
                found = interfaces.get(interface, {})
                return Message.new_method_return(message, "a{sv}", [found])
            case "Get", [interface, name]:
                return Message.new_method_return(
                    message, "v", [interfaces[interface][name]]
                )
            case _:  # Set: accepted, and of no effect
                return Message.new_method_return(message)

    def _follow_scanning(self, path: str, member: str) -> None:
        """Follow whether an adapter scans, actively or passively."""
        match member:
            case "StartDiscovery" | "RegisterMonitor":
                self._scanning.add(path)
            case "StopDiscovery" | "UnregisterMonitor":
                self._scanning.discard(path)
        if member in {"StartDiscovery", "StopDiscovery"}:
            discovering = Variant("b", member == "StartDiscovery")
            self._change(path, ADAPTER, {"Discovering": discovering})


class SimulatedKernel:
    """The kernel's Bluetooth management API on a unix socket.

    Every command succeeds, and each advertisement is an event with its raw data.
    """

    def __init__(self, path: Path) -> None:
        """Describe the socket by its path."""
        self.path = path
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the socket and all connections."""
        if self._server:
            self._server.close()
            self._server.close_clients()
            await self._server.wait_closed()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a client's commands until it leaves."""
        self._clients.add(writer)
        try:
            while True:
                header = await reader.readexactly(HEADER.size)
                command, controller, length = HEADER.unpack(header)
                await reader.readexactly(length)
                answer = struct.pack("<HB", command, 0)
                if command == GET_CONNECTIONS:
                    answer += struct.pack("<H", 0)
                self._write(writer, COMMAND_COMPLETE, controller, answer)
        except asyncio.IncompleteReadError, ConnectionError:
            pass
        finally:
            self._clients.discard(writer)
            writer.close()

    @staticmethod
    def _write(
        writer: asyncio.StreamWriter, event: int, controller: int, body: bytes
    ) -> None:
        writer.write(HEADER.pack(event, controller, len(body)) + body)

    def device_found(
        self, controller: int, address: str, rssi: int, data: bytes, address_type: int
    ) -> None:
        """Tell every client of an advertisement."""
        body = struct.pack(
            "<6sBbIH",
            bytes.fromhex(address.replace(":", ""))[::-1],
            1 + address_type,  # 1 is LE public, 2 is LE random
            rssi,
            0,
            len(data),
        )
        for client in self._clients:
            self._write(client, DEVICE_FOUND, controller, body + data)


@asynccontextmanager
async def dbus_daemon(directory: Path) -> AsyncGenerator[str]:
    """Run a private D-Bus daemon in a directory, and yield its bus address."""
    program = find_program("dbus-daemon")
    if program is None:
        raise SimulationError("dbus-daemon is needed and was not found.")
    socket = directory / "bus"
    configuration = directory / "dbus.conf"
    template = Path(__file__).with_name("dbus.conf").read_text(encoding="utf-8")
    configuration.write_text(
        template.replace("{socket}", str(socket)), encoding="utf-8"
    )
    process = Process(
        "dbus-daemon",
        (program, f"--config-file={configuration}", "--nofork", "--nopidfile"),
        directory / "dbus.log",
    )
    process.start()
    try:
        while not socket.exists():
            process.check()
            await asyncio.sleep(POLL_SECONDS)
        yield f"unix:path={socket}"
    finally:
        await process.stop()


@asynccontextmanager
async def simulated_bluez(
    adapters: Sequence[str] = ("hci0",), *, passive: bool = True, raw: bool = False
) -> AsyncGenerator[SimulatedBluez]:
    """Run a BlueZ on a bus of its own; Home Assistant needs its `environment`.

    With `raw`, advertisements arrive on the management side channel, with their data
    as on the air; without, over D-Bus, parsed.
    """
    with TemporaryDirectory(prefix="ble-bridge-") as name:
        directory = Path(name)
        async with (
            dbus_daemon(directory) as bus_address,
            SimulatedKernel(directory / "management") as kernel,
        ):
            bluez = SimulatedBluez(bus_address, adapters, passive=passive)
            if raw:
                bluez.kernel = kernel
                bluez.environment[MANAGEMENT_SOCKET] = str(kernel.path)
            await bluez.start()
            try:
                yield bluez
            finally:
                bluez.stop()
