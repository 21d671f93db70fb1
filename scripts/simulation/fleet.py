"""A fleet of controllers that speak `specs/mqtt-monitor.md` to a broker, with all faults."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
import heapq
from itertools import count
import json
from random import Random
import time
from typing import Any, Final, Self

from .mqtt_client import MqttClient
from .processes import POLL_SECONDS, SimulationError

type Value = bool | int | float | str
type Said = dict[str, Any]

BASE: Final = "autocore"
TICK_SECONDS: Final = 0.05
STATUS_SECONDS: Final = 60.0
RELAY_SECONDS: Final = (15.0, 60.0)
SYSTEM_SECONDS: Final = (30.0, 120.0)
FAULT_SECONDS: Final = (3.0, 10.0)
BOOT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5
CONNECTING: Final = 50
# The largest message that a monitor takes unless it is told otherwise (bytes).
LARGEST: Final = 64 * 1024
# One press in so many switches of a relay; the others are by schedule.
_MANUAL: Final = 0.3
# How often a word changes.
_CHANGE: Final = 0.05
_SYSTEM: Final = (
    ("warning", "Supply voltage is low"),
    ("error", "Sensor does not answer"),
    ("ota", "No newer firmware"),
)


@dataclass(frozen=True, slots=True)
class Drift:
    """A number that changes slowly between two ends; it only grows where there is none."""

    low: float
    high: float | None
    step: float
    digits: int = 1

    def begin(self, random: Random) -> float:
        """Return the number that a controller begins with."""
        high = 100 * self.low if self.high is None else self.high
        return self._rounded(random.uniform(self.low, high))

    def next(self, value: float, random: Random) -> float:
        """Return the number that comes next."""
        if self.high is None:
            return self._rounded(value + random.uniform(0, self.step))
        value += random.uniform(-self.step, self.step)
        return self._rounded(max(self.low, min(self.high, value)))

    def _rounded(self, value: float) -> float:
        return round(value, self.digits) if self.digits else round(value)


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of controller: its relays, and what it measures."""

    name: str
    relays: int
    drifts: Mapping[str, Drift]
    words: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    tells_uptime: bool = False
    plain_will: bool = False


_BOARD: Final = {
    "voltage": Drift(3.2, 3.4, 0.01, 2),
    "memory_free": Drift(30_000, 60_000, 400, 0),
    "rssi": Drift(-85, -40, 2, 0),
}
MODELS: Final = (
    Model(
        "climate",
        2,
        {"temperature": Drift(16, 28, 0.1), "humidity": Drift(30, 70, 0.4), **_BOARD},
        {"mode": ("eco", "comfort", "off")},
    ),
    Model(
        "pump",
        1,
        {
            "water_temperature": Drift(4, 30, 0.2),
            "pressure_bar": Drift(0.5, 6, 0.05, 2),
            "volume_flow_rate": Drift(0, 3, 0.1, 2),
            **_BOARD,
        },
        {"running": (False, True)},
    ),
    Model(
        "gate",
        4,
        {
            "battery": Drift(20, 100, 0.6, 0),
            "temperature": Drift(-5, 35, 0.2),
            **_BOARD,
        },
        {"door": (False, True), "obstructed": (False, False, False, True)},
        tells_uptime=True,
        plain_will=True,
    ),
    Model(
        "meter",
        1,
        {
            "power": Drift(0, 3000, 60),
            "energy_kwh": Drift(50, None, 0.01, 3),
            "current": Drift(0, 16, 0.3, 2),
            "frequency": Drift(49.9, 50.1, 0.01, 2),
            **_BOARD,
        },
    ),
)


class Controller:
    """One controller, and all that it said last."""

    def __init__(self, number: int, seed: int) -> None:
        """Build a controller; its number tells its kind, and with the seed all else."""
        self.id = f"ESP32_{number:03}"
        self.model = MODELS[number % len(MODELS)]
        self.random = Random(f"{seed} {number}")
        self.ip = f"192.168.{10 + number // 250}.{1 + number % 250}"
        self.release = self.random.randrange(20)
        self.booted = time.monotonic() - self.random.uniform(60, 10**6)
        self.is_powered = True
        self.is_frozen = False
        self.client: MqttClient | None = None
        self.status: str | None = None
        self.values: dict[str, Value] = {}
        self.relays = dict.fromkeys(range(self.model.relays), (False, "boot"))
        self.events: dict[str, tuple[str, Said]] = {}

    @property
    def firmware(self) -> str:
        """Return the version that it runs."""
        return f"1.{self.release // 10}.{self.release % 10}"

    @property
    def uptime(self) -> int:
        """Return for how long it has run (s)."""
        return int(time.monotonic() - self.booted)

    @property
    def speaks(self) -> bool:
        """Return whether it can say something."""
        return self.client is not None and self.client.is_open and not self.is_frozen

    @property
    def will(self) -> bytes:
        """Return what the broker says for it when it is gone."""
        if self.model.plain_will:
            return b"offline"
        return json.dumps({"device_id": self.id, "status": "offline"}).encode()

    def measure(self) -> dict[str, Value]:
        """Return what it measures now."""
        model, values, random = self.model, self.values, self.random
        for name, drift in model.drifts.items():
            before = values.get(name)
            values[name] = (
                drift.begin(random)
                if before is None
                else drift.next(float(before), random)
            )
        for name, words in model.words.items():
            if name not in values or random.random() < _CHANGE:
                values[name] = random.choice(words)
        if model.tells_uptime:
            values["uptime"] = self.uptime
        return values

    def reboot(self) -> None:
        """Begin anew, with new firmware."""
        self.booted = time.monotonic()
        self.release += 1
        self.relays = dict.fromkeys(self.relays, (False, "boot"))

    def said(self, **values: Any) -> Said:
        """Return a payload with what is in each."""
        return {"device_id": self.id, **values, "timestamp": timestamp()}


def timestamp() -> str:
    """Return the time as controllers write it."""
    return f"{datetime.now(UTC).isoformat(timespec='milliseconds')[:-6]}Z"


# --- what cannot be understood ----------------------------------------------------------


type Malformed = tuple[str, bytes]


def _telemetry(controller: Controller, **values: Any) -> Malformed:
    """Return telemetry that says something wrong, or without something where it is None."""
    said = controller.said(temperature=20.5) | values
    shown = {name: value for name, value in said.items() if value is not None}
    return f"{controller.id}/telemetry", json.dumps(shown).encode()


def _not_json(controller: Controller) -> Malformed:
    topic, payload = _telemetry(controller)
    broken = (payload[:-9], b"\xff\xfe" + payload, payload.replace(b'"', b"'"), b"nan")
    return topic, controller.random.choice(broken)


def _not_an_object(controller: Controller) -> Malformed:
    payload = controller.random.choice((b"[20.5, 41]", b"20.5", b'"warm"', b"null"))
    return f"{controller.id}/telemetry", payload


def _incomplete(controller: Controller) -> Malformed:
    topic, said = controller.random.choice(
        (
            ("status", controller.said(uptime=5)),
            ("telemetry", controller.said()),
            ("relay/0/status", controller.said(relay_index=0, triggered_by="manual")),
            ("relay/0/status", controller.said(relay_index=0, state="maybe")),
        )
    )
    return f"{controller.id}/{topic}", json.dumps(said).encode()


def _invalid_id(controller: Controller) -> Malformed:
    name = controller.random.choice((65 * "x", " ", "ESP32\u200b"))
    said = controller.said(device_id=name, temperature=20.5)
    return f"{name}/telemetry", json.dumps(said).encode()


def _id_mismatch(controller: Controller) -> Malformed:
    if controller.random.random() < 0.5:
        return _telemetry(controller, device_id="ESP32_other")
    said = controller.said(relay_index=7, state=True, triggered_by="manual")
    return f"{controller.id}/relay/0/status", json.dumps(said).encode()


def _time_absurd(controller: Controller) -> Malformed:
    # A clock that was never set, one far ahead, and what is no time
    moments = ("1970-01-01T00:00:12Z", 2**33, "yesterday", True)
    return _telemetry(controller, timestamp=controller.random.choice(moments))


def _number_too_large(controller: Controller) -> Malformed:
    topic, payload = _telemetry(controller, temperature=12345)
    number = controller.random.choice((b"1e300", b"1e999", b"-9" + 30 * b"9"))
    return topic, payload.replace(b"12345", number)


def _too_large(controller: Controller) -> Malformed:
    return _telemetry(controller, log=LARGEST * "x")


def _too_deep(controller: Controller) -> Malformed:
    depth = controller.random.choice((6, 60, 600))
    topic, payload = _telemetry(controller, nested=12345)
    deep = depth * b'{"a":' + b"1" + depth * b"}"
    return topic, payload.replace(b"12345", deep)


def _too_many_values(controller: Controller) -> Malformed:
    return _telemetry(controller, **{f"cell_{cell}": 3.3 for cell in range(300)})


def _too_many_devices(controller: Controller) -> Malformed:
    """Return what one says that is beyond the limit; all others must be known by then."""
    name = f"stranger_{controller.random.randrange(10**6):06}"
    said = controller.said(device_id=name, temperature=20.5)
    return f"{name}/telemetry", json.dumps(said).encode()


# By the reasons why a monitor does not understand them.
MALFORMED: Final[Mapping[str, Callable[[Controller], Malformed]]] = {
    "not_json": _not_json,
    "not_an_object": _not_an_object,
    "incomplete": _incomplete,
    "invalid_id": _invalid_id,
    "id_mismatch": _id_mismatch,
    "time_missing": lambda controller: _telemetry(controller, timestamp=None),
    "time_absurd": _time_absurd,
    "number_too_large": _number_too_large,
    "too_large": _too_large,
    "too_deep": _too_deep,
    "too_many_values": _too_many_values,
    "too_many_devices": _too_many_devices,
}


# --- all of them ------------------------------------------------------------------------

type Act = Callable[[], float | None]


class Fleet:
    """Controllers on a broker; a context manager, that connects all of them.

    `sent` counts valid messages by kind, among them the wills that the broker published;
    `malformed` counts the others by reason. Both are exact after `settle`, as long as the
    broker lived. What each says, and in which order, is the same in every run with a seed.
    """

    def __init__(
        self,
        size: int,
        port: int,
        *,
        seed: int = 0,
        telemetry: float = 5.0,
        malformed: float = 2.0,
        faults: float = 0.5,
    ) -> None:
        """Build a fleet of a size, for the broker on a port of this machine.

        Each says its telemetry every so many seconds; `malformed` and `faults` are how many
        there are in a second, in all of the fleet.
        """
        self.sent: Counter[str] = Counter()
        self.malformed: Counter[str] = Counter()
        self.retained: set[str] = set()
        self.controllers = [Controller(number, seed) for number in range(1, size + 1)]
        self.telemetry = telemetry
        self.faults = faults
        self.malformed_rate = malformed
        self._port = port
        self._random = Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting = asyncio.Semaphore(CONNECTING)
        self._now = 0.0
        self._numbers = count()
        self._due: list[tuple[float, int, Act]] = []
        self._ends: dict[Controller, Callable[[Controller], None]] = {}
        self._reasons: list[str] = []
        self._plan()

    async def __aenter__(self) -> Self:
        """Connect all controllers; each says what it is."""
        try:
            async with asyncio.TaskGroup() as group:
                for controller in self.controllers:
                    group.create_task(self._connect(controller))
        except* SimulationError as errors:
            await self.__aexit__()
            raise errors.exceptions[0] from None
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect all controllers."""
        for controller in self.controllers:
            controller.is_powered = False
        for task in tuple(self._tasks):
            task.cancel()
        clients = [c.client for c in self.controllers if c.client is not None]
        for client in clients:
            client.disconnect()
        await asyncio.sleep(0)
        for client in clients:
            client.close()

    @property
    def valid(self) -> int:
        """Return how many messages were sent that can be understood."""
        return self.sent.total()

    @property
    def connected(self) -> int:
        """Return how many controllers are connected."""
        return sum(
            controller.client is not None and controller.client.is_open
            for controller in self.controllers
        )

    async def settle(self) -> None:
        """Wait until the broker has taken all that was said."""
        await asyncio.gather(
            *(
                controller.client.flush()
                for controller in self.controllers
                if controller.client is not None
            )
        )

    async def wait_connected(self, timeout: float = 30.0) -> None:
        """Wait until all controllers are connected that have power."""
        try:
            async with asyncio.timeout(timeout):
                while self.connected < sum(c.is_powered for c in self.controllers):
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise SimulationError(
                f"Only {self.connected} controllers are connected."
            ) from None

    # --- as time goes by ----------------------------------------------------------------

    async def play(self) -> None:
        """Let all controllers live, until cancelled; goes on where it stopped."""
        began = time.monotonic() - self._now
        while True:
            now = time.monotonic() - began
            while self._due[0][0] <= now:
                self._now, _, act = heapq.heappop(self._due)
                if (seconds := act()) is not None:
                    self._later(seconds, act)
            self._now = now
            await asyncio.sleep(TICK_SECONDS)

    def _plan(self) -> None:
        """Plan what each controller does, and what goes wrong."""
        for controller in self.controllers:
            for act, longest in (
                (self._act_telemetry, self.telemetry),
                (self._act_status, STATUS_SECONDS),
                (self._act_relay, RELAY_SECONDS[1]),
                (self._act_system, SYSTEM_SECONDS[1]),
            ):
                seconds = self._random.uniform(0, longest)
                self._later(seconds, partial(act, controller))
        self._later(0, self._act_malformed)
        self._later(0, self._act_fault)

    def _later(self, seconds: float, act: Act) -> None:
        """Do something so many seconds from now; it says when it is to be done again."""
        heapq.heappush(self._due, (self._now + seconds, next(self._numbers), act))

    def _act_telemetry(self, controller: Controller) -> float:
        self.say_telemetry(controller)
        return self.telemetry

    def _act_status(self, controller: Controller) -> float:
        self.say_status(controller)
        return STATUS_SECONDS

    def _act_relay(self, controller: Controller) -> float:
        random = controller.random
        relay = random.randrange(controller.model.relays)
        if random.random() < _MANUAL:
            self.press(controller, relay)
        else:
            self.switch(controller, relay, "schedule")
        return random.uniform(*RELAY_SECONDS)

    def _act_system(self, controller: Controller) -> float:
        self.say_system(controller, *controller.random.choice(_SYSTEM))
        return controller.random.uniform(*SYSTEM_SECONDS)

    def _act_malformed(self) -> float:
        """Say something malformed: each kind once, in any order, before one comes again."""
        if not self.malformed_rate:
            return 1
        if not self._reasons:
            self._reasons = self._random.sample([*MALFORMED], len(MALFORMED))
        controller = self._random.choice(self.controllers)
        if controller.speaks:
            self.malform(controller, self._reasons.pop())
        return 1 / self.malformed_rate

    def _act_fault(self) -> float:
        """Let something happen to a controller."""
        if not self.faults:
            return 1
        controller = self._random.choice(self.controllers)
        fault = self._random.choice((self.die, self.freeze, self.restart))
        seconds = self._random.uniform(*FAULT_SECONDS)
        if controller.speaks:
            fault(controller)
            if fault == self.die:
                self._end_later(seconds, controller, self.bring_back)
            elif fault == self.freeze:
                self._end_later(seconds, controller, self.thaw)
        return 1 / self.faults

    def _end_later(
        self, seconds: float, controller: Controller, end: Callable[[Controller], None]
    ) -> None:
        """End what is wrong with a controller so many seconds from now, or in `heal`."""
        self._ends[controller] = end
        self._later(seconds, partial(self._act_end, controller, end))

    def _act_end(
        self, controller: Controller, end: Callable[[Controller], None]
    ) -> None:
        if self._ends.get(controller) == end:
            del self._ends[controller]
            end(controller)

    def heal(self) -> None:
        """End at once what went wrong as time went by."""
        for controller, end in tuple(self._ends.items()):
            self._act_end(controller, end)

    # --- what they say ------------------------------------------------------------------

    def say_status(self, controller: Controller) -> None:
        """Say what a controller is."""
        if self._say(
            controller,
            "status",
            "status",
            controller.said(
                status="online",
                ip_address=controller.ip,
                firmware_version=controller.firmware,
                uptime=controller.uptime,
            ),
            retain=True,
        ):
            controller.status = "online"

    def say_telemetry(self, controller: Controller) -> None:
        """Say what a controller measures, at QoS 0."""
        if controller.speaks:
            said = controller.said(**controller.measure())
            self._say(controller, "telemetry", "telemetry", said, qos=0)

    def switch(self, controller: Controller, relay: int, triggered_by: str) -> None:
        """Switch a relay."""
        if controller.speaks:
            state, _ = controller.relays[relay]
            controller.relays[relay] = (not state, triggered_by)
            self.say_relay(controller, relay)

    def say_relay(self, controller: Controller, relay: int) -> None:
        """Say what a relay does."""
        state, triggered_by = controller.relays[relay]
        said = controller.said(
            relay_index=relay, state=state, triggered_by=triggered_by
        )
        self._say(controller, "relay", f"relay/{relay}/status", said, retain=True)

    def press(self, controller: Controller, relay: int) -> None:
        """Have somebody press what switches a relay on a controller's display."""
        where = {"screen": "home", "button": f"relay {relay}"}
        said = controller.said(action="press", **where)
        if self._say(controller, "interaction", "display/interaction", said):
            controller.events["interaction"] = ("press", where)
        self.switch(controller, relay, "manual")

    def say_system(self, controller: Controller, name: str, message: str) -> None:
        """Have a controller's system say something."""
        said = {"message": message, "uptime": controller.uptime}
        if self._say(controller, "system", f"system/{name}", controller.said(**said)):
            controller.events["system"] = (name, said)

    def say_all(self, controller: Controller) -> None:
        """Say all that a controller is and measures."""
        self.say_status(controller)
        self.say_telemetry(controller)
        for relay in controller.relays:
            self.say_relay(controller, relay)

    def malform(self, controller: Controller, reason: str) -> None:
        """Say something that cannot be understood, over a controller's connection."""
        if controller.client is not None and controller.speaks:
            topic, payload = MALFORMED[reason](controller)
            controller.client.publish(f"{BASE}/{topic}", payload, qos=1)
            self.malformed[reason] += 1

    def _say(
        self,
        controller: Controller,
        kind: str,
        levels: str,
        said: Said,
        *,
        qos: int = 1,
        retain: bool = False,
    ) -> bool:
        """Publish what a controller says; tell whether it can say anything."""
        if controller.client is None or not controller.speaks:
            return False
        topic = f"{BASE}/{controller.id}/{levels}"
        payload = json.dumps(said, separators=(",", ":")).encode()
        controller.client.publish(topic, payload, qos=qos, retain=retain)
        self.sent[kind] += 1
        if retain:
            self.retained.add(topic)
        return True

    # --- what happens to them -----------------------------------------------------------

    def die(self, controller: Controller) -> None:
        """Take a controller's power away; the broker publishes its will."""
        controller.is_powered = False
        if controller.client is not None and controller.client.is_open:
            controller.client.cut()
            self.sent["will"] += 1
            controller.status = "offline"

    def bring_back(self, controller: Controller) -> None:
        """Give a controller its power back."""
        if not controller.is_powered:
            controller.is_powered = True
            self._start(self._keep_trying(controller))

    def restart(self, controller: Controller) -> None:
        """Have a controller restart with new firmware; its connection just ends."""
        self.die(controller)
        self._end_later(BOOT_SECONDS, controller, self._boot)

    def _boot(self, controller: Controller) -> None:
        """Start a controller with new firmware."""
        controller.reboot()
        self.bring_back(controller)

    def freeze(self, controller: Controller) -> None:
        """Have a controller say nothing any more, though its connection lives on."""
        controller.is_frozen = True

    def thaw(self, controller: Controller) -> None:
        """Let a frozen controller go on."""
        controller.is_frozen = False

    def _start(self, coroutine: Any) -> None:
        """Do something beside all else, until the end."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_trying(self, controller: Controller) -> None:
        """Connect a controller as soon as that is possible."""
        while controller.is_powered:
            with suppress(SimulationError):
                await self._connect(controller)
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self, controller: Controller) -> None:
        """Connect a controller, which then says what it is, and what its relays do."""

        def on_lost(client: MqttClient) -> None:
            if controller.is_powered and controller.client is client:
                self._start(self._keep_trying(controller))

        topic = f"{BASE}/{controller.id}/status"
        async with self._connecting:
            controller.client = await MqttClient.connect(
                self._port, controller.id, (topic, controller.will), on_lost
            )
        self.say_status(controller)
        for relay in controller.relays:
            self.say_relay(controller, relay)
