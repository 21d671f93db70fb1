"""The faults, one by one: each goes on for some seconds, while traffic runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
import signal
from typing import Final

from scripts.simulation.processes import SimulationError

from .certificates import Authority
from .house import House
from .outlets import EVERY, EXPOSED, INFLUX, NATS, PLAIN, SECURE, Outlet

type Do = Callable[[House, float, Random], Awaitable[None]]

YEAR: Final = 365 * 24 * 3600.0
# MQTT 5, 2.4
QUOTA_EXCEEDED: Final = 0x97
FLOOD: Final = 1_000  # advertisements a second
RSS_GROWTH: Final = 10 * 1024 * 1024
LATE: Final = 1.0
_NO_SPACE: Final = ("No space left on device",)
# How a store says that it has too much to do, and that it cannot at present.
_TOO_MUCH: Final = ("429 Too Many Requests", "Retry-After: 1")
_BUSY: Final = ("503 Service Unavailable",)
FAULTS: Final[dict[str, Fault]] = {}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, and what it may do.

    `seconds` is how long it lasts by default. `outlets` are the destinations that it hits.
    `forgives` names the counters (of records set aside, or lost with the disk) that account
    for what does not arrive; `allows` what Home Assistant's own parts may log; `issue` how
    the repair issue begins that must tell of it.
    """

    name: str
    title: str
    do: Do
    seconds: float = 3.0
    outlets: tuple[str, ...] = EXPOSED
    forgives: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()
    issue: str | None = None
    may_be_late: bool = False


def fault(title: str, **details: object) -> Callable[[Do], Do]:
    """Enter a function into the list of faults."""

    def enter(do: Do) -> Do:
        name = getattr(do, "__name__")  # noqa: B009
        FAULTS[name] = Fault(name=name, title=title, do=do, **details)  # type: ignore[arg-type]
        return do

    return enter


# --- the servers ------------------------------------------------------------------------


@fault("server killed (`kill -9`)")
async def server_killed(house: House, seconds: float, _: Random) -> None:
    """Kill the server, and bring it back."""
    await house.each(Outlet.kill)
    await asyncio.sleep(seconds)
    await house.each(Outlet.start)


@fault("server frozen")
async def server_frozen(house: House, seconds: float, _: Random) -> None:
    """Have the kernel take what is sent, and nobody answer."""
    for outlet in house.exposed:
        outlet.freeze()
    await asyncio.sleep(seconds)
    for outlet in house.exposed:
        outlet.thaw()


@fault("integration reloaded in mid-flight", seconds=1, outlets=EVERY)
async def reloaded(house: House, seconds: float, _: Random) -> None:
    """Load the integration anew while messages are under way."""
    await asyncio.sleep(seconds)
    await house.reload()


@fault("server restarted", seconds=1)
async def server_restarted(house: House, seconds: float, _: Random) -> None:
    """Stop the server, and bring it back."""
    await house.each(Outlet.stop)
    await asyncio.sleep(seconds)
    await house.each(Outlet.start)


@fault("slow network (16 kB/s)", seconds=5)
async def network_slow(house: House, seconds: float, _: Random) -> None:
    """Pass on less than is said."""
    for outlet in house.exposed:
        outlet.proxy.rate = 16_000
    await asyncio.sleep(seconds)
    for outlet in house.exposed:
        outlet.proxy.rate = None


@fault("far network (0.3 s each way)")
async def network_far(house: House, seconds: float, _: Random) -> None:
    """Have each answer take its time."""
    for outlet in house.exposed:
        outlet.proxy.delay = 0.3
    await asyncio.sleep(seconds)
    for outlet in house.exposed:
        outlet.proxy.delay = 0.0


@fault(
    "server full (MQTT 5 quota exceeded; HTTP 429, then 503)", outlets=(PLAIN, INFLUX)
)
async def server_full(house: House, seconds: float, _: Random) -> None:
    """Have each message refused for lack of room."""
    await house.needs_version_5()
    mqtt, http = house.plain.proxy, house.influx.proxy
    rejected, refused = mqtt.rejected, http.refused
    mqtt.rejections = {f"{PLAIN}/": QUOTA_EXCEEDED}
    for refusal in (_TOO_MUCH, _BUSY):
        http.refusal = refusal
        await asyncio.sleep(seconds / 2)
    mqtt.rejections = {}
    http.refusal = ()
    house.expect(mqtt.rejected > rejected, "nothing was rejected: is QoS 1 spoken?")
    house.expect(http.refused > refused, "no points were refused")


@fault(
    "topic (ACL) or subject denied, then allowed",
    outlets=(PLAIN, NATS),
    forgives=("refused",),
)
async def topic_denied(house: House, seconds: float, _: Random) -> None:
    """Do not let the bridge publish readings, for a while."""
    await house.needs_version_5()
    house.plain.allow(f"topic read {PLAIN}/#", f"topic readwrite {PLAIN}-raw/#")
    house.plain.server.reload()
    house.nats.server.deny(f"{NATS}.*.data")
    await asyncio.sleep(seconds)
    for name, destination in (await house.destinations()).items():
        is_denied = destination["last_error"] == "not_authorized"
        house.expect(is_denied == (name in (PLAIN, NATS)), f"{name} is not as denied")
    house.plain.allow("topic readwrite #")
    house.plain.server.reload()
    house.nats.server.deny()


@fault("broker downgraded to MQTT 3.1.1, then upgraded to 5", outlets=(PLAIN,))
async def broker_upgraded(house: House, seconds: float, _: Random) -> None:
    """Bring back a broker that knows no MQTT 5, and later one that does."""
    await house.needs_version_5()
    proxy = house.plain.proxy
    proxy.refuses_5 = True
    proxy.cut()
    await asyncio.sleep(seconds)
    proxy.refuses_5 = False
    proxy.cut()


# --- Home Assistant ---------------------------------------------------------------------


@fault("Home Assistant killed (`kill -9`)", seconds=1, outlets=EVERY)
async def ha_killed(house: House, seconds: float, _: Random) -> None:
    """Kill Home Assistant while messages are under way."""
    await asyncio.sleep(seconds)
    await house.kill()
    await house.start()


# --- the network ------------------------------------------------------------------------


async def _cut(house: House, random: Random, least: int, most: int) -> None:
    """Cut each connection after so many bytes."""
    proxies = [outlet.proxy for outlet in house.exposed]
    for proxy in proxies:
        proxy.cut_after = random.randrange(least, most)
    async with asyncio.timeout(20):
        while any(proxy.cut_after is not None for proxy in proxies):
            await asyncio.sleep(0.01)


@fault("connection cut in the middle of a packet", seconds=1)
async def cut_in_a_packet(house: House, seconds: float, random: Random) -> None:
    """Pass on half a packet, and then a reset."""
    await asyncio.sleep(seconds)
    await _cut(house, random, 200, 4_000)


@fault("connection half open", seconds=1)
async def half_open(house: House, seconds: float, _: Random) -> None:
    """End the server's side of the connection, and do not say so."""
    await asyncio.sleep(seconds)
    for outlet in house.exposed:
        outlet.proxy.half_open()


@fault("integration reloaded with the servers away", seconds=2, outlets=EVERY)
async def reloaded_away(house: House, seconds: float, _: Random) -> None:
    """Load the integration anew while records wait."""
    house.cut_off()
    await asyncio.sleep(seconds)
    await house.reload()
    await asyncio.sleep(seconds)
    await house.pass_on()


@fault("connection black-holed", seconds=4)
async def black_hole(house: House, seconds: float, _: Random) -> None:
    """Take what is sent, also on new connections, and pass on nothing."""
    for outlet in house.exposed:
        outlet.proxy.swallows = True
    await asyncio.sleep(seconds)
    for outlet in house.exposed:
        outlet.proxy.swallows = False


@fault("connection refused")
async def refused(house: House, seconds: float, _: Random) -> None:
    """Have nobody listen at the server's port."""
    house.cut_off()
    await asyncio.sleep(seconds)
    await house.pass_on()


@fault("Home Assistant stopped and started", seconds=1, outlets=EVERY)
async def ha_stopped(house: House, seconds: float, _: Random) -> None:
    """Stop Home Assistant as a user does, and start it."""
    await asyncio.sleep(seconds)
    await house.stop()
    await house.start()


@fault("name server gone")
async def no_dns(house: House, seconds: float, _: Random) -> None:
    """Lose the connection, and have no address for the server's name."""
    await house.set_faults(no_dns=True)
    for outlet in house.exposed:
        outlet.proxy.cut()
    await asyncio.sleep(seconds)
    await house.set_faults()


@fault(f"servers away under {FLOOD:,} advertisements a second", seconds=6)
async def flood_while_away(house: House, seconds: float, _: Random) -> None:
    """See that memory stays flat, and that the loop does not stall."""
    house.cut_off()
    house.traffic.flood = FLOOD
    await asyncio.sleep(1)
    before = await house.probe()
    await asyncio.sleep(seconds)
    after = await house.probe()
    house.traffic.flood = 200
    await house.pass_on()
    growth = after["rss"] - before["rss"]
    house.expect(growth < RSS_GROWTH, f"memory grew by {growth / 1024:.0f} KiB")
    house.expect(after["late_s"] < LATE, f"the loop was {after['late_s']:.2f} s late")


@fault("Home Assistant killed with the servers away", seconds=2, outlets=EVERY)
async def ha_killed_away(house: House, seconds: float, _: Random) -> None:
    """Kill Home Assistant while records wait; the servers come back later."""
    house.cut_off()
    await asyncio.sleep(seconds)
    await house.kill()
    await house.start()
    await house.pass_on()


# --- time -------------------------------------------------------------------------------


@fault("clock jumps a year ahead and two back")
async def clock_jumps(house: House, seconds: float, _: Random) -> None:
    """Have the clock jump while records wait."""
    house.cut_off()
    await asyncio.sleep(seconds / 3)
    await house.set_faults(clock=YEAR)
    await asyncio.sleep(seconds / 3)
    await house.set_faults(clock=-YEAR)
    await house.pass_on()
    await asyncio.sleep(seconds / 3)
    await house.set_faults()


@fault("Home Assistant suspended", outlets=EVERY, may_be_late=True, seconds=4)
async def ha_suspended(house: House, seconds: float, _: Random) -> None:
    """Have Home Assistant stand still, as on a host that is suspended."""
    house.home_assistant.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    house.home_assistant.send_signal(signal.SIGCONT)


@fault("clock a year behind at the start, then right", seconds=2)
async def clock_behind_at_start(house: House, seconds: float, _: Random) -> None:
    """Start in the past, as a host without a clock of its own, with records that wait."""
    house.cut_off()
    await asyncio.sleep(seconds)
    await house.stop()
    await house.start(clock=-YEAR)
    await house.pass_on()
    await asyncio.sleep(seconds)
    await house.set_faults()


# --- the disk ---------------------------------------------------------------------------


@fault("disk full", allows=_NO_SPACE)
async def disk_full(house: House, seconds: float, _: Random) -> None:
    """Leave no room for what waits."""
    house.cut_off()
    await house.fill_disk()
    await asyncio.sleep(seconds)
    await house.empty_disk()
    await house.pass_on()


@fault("disk read-only")
async def disk_read_only(house: House, seconds: float, _: Random) -> None:
    """Have nothing written of what waits."""
    house.cut_off()
    await house.set_faults(read_only=True)
    await asyncio.sleep(seconds)
    await house.set_faults()
    await house.pass_on()


@fault("disk slow (1 s for each commit)", seconds=4)
async def disk_slow(house: House, seconds: float, _: Random) -> None:
    """Have what waits written late."""
    house.cut_off()
    await house.set_faults(commit_seconds=1.0)
    await asyncio.sleep(seconds)
    await house.pass_on()
    await asyncio.sleep(seconds / 2)
    await house.set_faults()


async def _damage(
    house: House, seconds: float, do_damage: Callable[[Outlet, bytes], bytes]
) -> None:
    """Damage the files of what waits, while Home Assistant is stopped."""
    house.cut_off()
    await asyncio.sleep(seconds)
    await house.stop()
    try:
        for outlet in house.exposed:
            if (path := house.store(outlet.name)) is None:
                house.expect(False, f"{outlet.name}: there is no store to be damaged")
            else:
                path.write_bytes(do_damage(outlet, path.read_bytes()))
    finally:
        await house.start()
        await house.pass_on()


@fault("store truncated", seconds=4, issue="store_corrupt")
async def store_truncated(house: House, seconds: float, _: Random) -> None:
    """Take the end of the file away."""

    def truncate(outlet: Outlet, data: bytes) -> bytes:
        house.at_risk[outlet.name] = data.count(outlet.mark)
        return data[: len(data) * 6 // 10]

    await _damage(house, seconds, truncate)


@fault("connection far and cut, twice", seconds=2)
async def cut_twice(house: House, seconds: float, random: Random) -> None:
    """End the connection while messages are under way, each time."""
    for outlet in house.exposed:
        outlet.proxy.delay = 0.2
    for _ in range(2):
        await asyncio.sleep(seconds)
        await _cut(house, random, 2_000, 20_000)
    for outlet in house.exposed:
        outlet.proxy.delay = 0.0


@fault(
    "store with flipped bits", seconds=4, forgives=("failed",), issue="store_corrupt"
)
async def store_flipped(house: House, seconds: float, random: Random) -> None:
    """Flip a few bits in records that wait."""

    def flip(outlet: Outlet, data: bytes) -> bytes:
        flipped, mark = bytearray(data), outlet.mark
        places = [place for place in range(len(data)) if data.startswith(mark, place)]
        house.expect(bool(places), f"{outlet.name}: no record was found in the store")
        # Not all of them need be in pages that are in use
        for place in random.sample(places, len(places) // 3):
            flipped[place + random.randrange(len(mark))] ^= 1 << random.randrange(8)
        return bytes(flipped)

    await _damage(house, seconds, flip)


# --- certificates -----------------------------------------------------------------------


@fault("certificate replaced", seconds=1, outlets=(SECURE,))
async def certificate_replaced(house: House, seconds: float, _: Random) -> None:
    """Bring the broker back with a new certificate of the same authority."""
    await asyncio.sleep(seconds)
    await house.secure.certify(house.authority)


@fault("certificate of a wrong authority, then right", outlets=(SECURE,))
async def certificate_wrong(house: House, seconds: float, _: Random) -> None:
    """Bring the broker back as one not to be trusted, and then as itself."""
    await house.secure.certify(Authority("The wrong authority"))
    await asyncio.sleep(seconds)
    await house.secure.certify(house.authority)


def find(name: str) -> Fault:
    """Return a fault by its name."""
    if (found := FAULTS.get(name)) is None:
        raise SimulationError(f"There is no fault {name}; see --help.")
    return found
