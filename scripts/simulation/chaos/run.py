"""A run: faults one after the other, and what was measured and promised."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from random import Random
import statistics
import time
from typing import Any, Final

from aiohttp import ClientError

from scripts.simulation.processes import SimulationError

from .faults import Fault
from .health import complaints
from .house import DROPPED, House
from .ledger import Position
from .outlets import EVERY, TITLES

RECOVERY_SECONDS: Final = 100.0
SETTLE_SECONDS: Final = 10.0
HOPE_SECONDS: Final = 12.0
SAMPLE_SECONDS: Final = 0.5
LATE: Final = 3.0  # Of a debug loop on a busy machine
# What Home Assistant's own parts may have opened meanwhile.
SPARE_DESCRIPTORS: Final = 15
_POLL: Final = 0.02
_SHOWN: Final = 10


@dataclass(kw_only=True)
class Result:
    """What a fault did. Records are readings, those of each destination that it hit.

    `recovery_s` is the time from its end until all that had been said was delivered, and the
    next number of each device, everywhere; `recoveries` has it for each destination.
    `written_off` are those that were damaged on the disk, or set aside after they were
    refused, and told of: they are not `lost`. `late_s` is how late the event loop was at most; `rss_mb` the memory afterwards; `dropped`
    what became of records that were neither delivered nor wait.
    """

    fault: str
    title: str
    outlets: tuple[str, ...]
    sent: int = 0
    acknowledged: int = 0
    delivered: int = 0
    duplicates: int = 0
    lost: int = 0
    written_off: int = 0
    recovery_s: float | None = None
    recoveries: dict[str, float] = field(default_factory=dict)
    late_s: float = 0.0
    rss_mb: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Run:
    """Faults in a house, and what came of them."""

    def __init__(self, house: House, random: Random, *, steady: bool = False) -> None:
        """Begin; `steady` has each fault meet connections that proved themselves."""
        self.results: list[Result] = []
        self._house = house
        self._random = random
        self._steady = steady
        self._tasks_ours: int | None = None
        self._descriptors = 0

    async def fault(self, fault: Fault, seconds: float | None = None) -> Result:
        """Do a fault, wait for recovery, and return what was measured."""
        house = self._house
        await self._prepare()
        begin = house.ledger.position()
        before = {name: house.counters(name) for name in house.outlets}
        copies = {n: len(o.receiver.receipts.copies) for n, o in house.outlets.items()}
        disorder = {
            n: len(o.receiver.receipts.disorder) for n, o in house.outlets.items()
        }
        result = Result(fault=fault.name, title=fault.title, outlets=fault.outlets)
        sampling = asyncio.create_task(self._sample())
        try:
            await fault.do(house, seconds or fault.seconds, self._random)
            ended = time.monotonic()
            arrived = await self._delivered(begin, await self._one_more())
            result.recoveries = {
                name: round(moment - ended, 2)
                for name, moment in arrived.items()
                if name in fault.outlets
            }
            if arrived.keys() == house.outlets.keys():
                result.recovery_s = round(max(arrived.values()) - ended, 2)
        finally:
            sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
        end = house.ledger.position()
        if result.recovery_s is not None:
            await self._delivered(begin, end, SETTLE_SECONDS)
        await self._settle(fault, result)
        for name, outlet in house.outlets.items():
            receipts = outlet.receiver.receipts
            heard = list(house.ledger.heard(begin, end))
            lost = [number for number in heard if not receipts.has(*number)]
            counted = house.counters(name)
            counted.subtract(before[name])
            forgiven = house.at_risk[name] + sum(counted[key] for key in fault.forgives)
            if len(lost) > (forgiven if name in fault.outlets else 0):
                result.failures.append(
                    f"{name}: {len(lost)} of {len(heard)} were lost: {shown(lost)}"
                )
            if moved := receipts.disorder[disorder[name] :]:
                result.failures.append(
                    f"{name}: {len(moved)} arrived after a later one"
                    f" (device, number, later one): {shown(moved)}"
                )
            doubled = receipts.copies[copies[name] :]
            if doubled and outlet.dedupes:
                result.failures.append(
                    f"{name}: {len(doubled)} came twice: {shown(doubled)}"
                )
            if name in fault.outlets:
                result.sent += len(heard)
                result.written_off += min(len(lost), forgiven)
                result.lost += max(len(lost) - forgiven, 0)
                result.delivered += len(heard) - len(lost)
                result.duplicates += len(doubled)
                result.acknowledged += counted["acknowledged"] + counted["sent"]
                for key in DROPPED:
                    if counted[key]:
                        result.dropped[key] = result.dropped.get(key, 0) + counted[key]
        self.results.append(result)
        return result

    async def _prepare(self) -> None:
        """Wait until all is well, and note what is normal."""
        house = self._house
        await house.steady(always=self._steady)
        house.findings.clear()
        house.at_risk.clear()
        house.log.read()
        vitals = await house.probe()
        if self._tasks_ours is None:
            self._tasks_ours = len(vitals["tasks_ours"])
            self._descriptors = vitals["descriptors"]
        await house.sample()

    async def _sample(self) -> None:
        """Check all the time that the counters add up, where Home Assistant answers."""
        while True:
            # It may end while it is asked (aiohttp has a RuntimeError for that).
            with suppress(SimulationError, ClientError, OSError, RuntimeError):
                await self._house.sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _one_more(self) -> Position:
        """Wait until each device has said one number more, and return these."""
        ledger = self._house.ledger
        wanted = {device: last + 1 for device, last in ledger.position().items()}
        async with asyncio.timeout(SETTLE_SECONDS):
            while any(len(ledger.said[device]) < n for device, n in wanted.items()):
                await asyncio.sleep(_POLL)
        return wanted

    async def _delivered(
        self, begin: Position, end: Position, seconds: float = RECOVERY_SECONDS
    ) -> dict[str, float]:
        """Wait until all that was heard in between has arrived; return when, and where.

        What is still missing long after later numbers of its device will not come.
        """
        house = self._house
        missing = {name: list(house.ledger.heard(begin, end)) for name in house.outlets}
        arrived: dict[str, float] = {}
        deadline = time.monotonic() + seconds
        count, hope = -1, deadline
        while True:
            overtaken = True
            for name in missing.keys() - arrived.keys():
                receipts = house.outlets[name].receiver.receipts
                missing[name] = [n for n in missing[name] if not receipts.has(*n)]
                overtaken &= all(receipts.is_overtaken(*n) for n in missing[name])
                if not missing[name]:
                    arrived[name] = time.monotonic()
            left = sum(map(len, missing.values()))
            if left != count or not overtaken:
                count, hope = left, time.monotonic() + HOPE_SECONDS
            if not left or time.monotonic() > min(deadline, hope):
                return arrived
            await asyncio.sleep(_POLL)

    async def _settle(self, fault: Fault, result: Result) -> None:
        """Wait until nothing is left of a fault, and note what is."""
        house = self._house
        house.traffic.paused = True  # So that nothing need wait
        deadline = time.monotonic() + SETTLE_SECONDS
        while left := await self._left(fault, result):
            if time.monotonic() > deadline:
                result.failures += left
                break
            await asyncio.sleep(0.1)
        for outlet in house.outlets.values():
            await outlet.receiver.settle()
        if fault.issue is not None:
            issues = await house.issues()
            for name in fault.outlets:
                issue = f"{fault.issue}_{house.subentries[name]}"
                house.expect(issue in issues, f"no repair issue {issue}, but {issues}")
        await house.tidy()
        house.traffic.paused = False
        if result.late_s > LATE and not fault.may_be_late:
            house.findings.append(f"the event loop was {result.late_s:.2f} s late")
        result.failures += dict.fromkeys(house.findings)
        result.failures += complaints(
            house.log.read(), fault.allows, slow_allowed=fault.may_be_late
        )

    async def _left(self, fault: Fault, result: Result) -> list[str]:
        """Return what is not yet as it was before a fault."""
        house = self._house
        vitals = await house.probe()
        result.late_s = max(result.late_s, round(vitals["late_s"], 3))
        result.rss_mb = round(vitals["rss"] / 1024 / 1024, 1)
        left = []
        tasks = vitals["tasks_ours"]
        if self._tasks_ours is not None and len(tasks) > self._tasks_ours:
            left.append(f"{len(tasks)} tasks, before {self._tasks_ours}: {tasks}")
        if vitals["descriptors"] > self._descriptors + SPARE_DESCRIPTORS:
            left.append(
                f"{vitals['descriptors']} open files, before {self._descriptors}"
            )
        for name, destination in (await house.sample()).items():
            if not destination["connected"]:
                left.append(f"{name} is not connected: {destination['last_error']}")
            if waiting := destination["delivery"]["waiting"]:
                left.append(f"{name}: {waiting} still wait in all")
            left += [
                f"{name}: {tally['waiting']} of kind {kind} still wait"
                for kind, tally in destination["records"].items()
                if tally["waiting"]
            ]
        left += [
            f"the repair issue {issue} is open"
            for issue in await house.issues()
            if fault.issue is None or not issue.startswith(fault.issue)
        ]
        return left

    # --- what is told -------------------------------------------------------------------

    @property
    def failures(self) -> list[str]:
        """Return all that was promised and did not hold."""
        return [f"{r.fault}: {text}" for r in self.results for text in r.failures]

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the run, over all destinations."""
        house = self._house
        everything = list(house.ledger.heard({}, house.ledger.position()))
        receipts = [outlet.receiver.receipts for outlet in house.outlets.values()]
        delivered = sum(r.has(*number) for r in receipts for number in everything)
        recoveries = [r.recovery_s for r in self.results if r.recovery_s is not None]
        counted = [house.counters(name) for name in house.outlets]
        written_off = sum(result.written_off for result in self.results)
        return {
            "faults": len(self.results),
            "sent": len(everything) * len(receipts),
            "acknowledged": sum(c["acknowledged"] + c["sent"] for c in counted),
            "delivered": delivered,
            "duplicates": sum(len(r.copies) for r in receipts),
            "lost": len(everything) * len(receipts) - delivered - written_off,
            "written_off": written_off,
            "recovery_s": {
                "p50": round(statistics.median(recoveries), 2) if recoveries else None,
                "max": max(recoveries, default=None),
            },
            "failures": self.failures,
            "by_fault": [asdict(result) for result in self.results],
        }


def shown(found: Sequence[object]) -> str:
    """Return the first of many things."""
    more = ", …" if len(found) > _SHOWN else ""
    return ", ".join(map(str, found[:_SHOWN])) + more


def rows(results: Iterable[Result]) -> list[tuple[str, ...]]:
    """Return the table of faults, a row each."""
    return [
        (
            result.title,
            f"{result.sent:,}",
            f"{result.delivered:,}",
            f"{result.duplicates:,}",
            f"{result.lost:,}"
            + (f" + {result.written_off:,} damaged" if result.written_off else ""),
            *(_recovery(result, name) for name in EVERY),
        )
        for result in results
    ]


def _recovery(result: Result, name: str) -> str:
    """Return how long the recovery of a destination took, as far as it was hit."""
    if name not in result.outlets:
        return ""
    return f"{result.recoveries[name]:.1f}" if name in result.recoveries else "-"


HEAD: Final = (
    "fault",
    "sent",
    "delivered",
    "doubled",
    "lost",
    *(f"{TITLES[name]} (s)" for name in EVERY),
)


def markdown(results: Iterable[Result]) -> str:
    """Return the table of faults as Markdown."""
    lines = [HEAD, ("---", *("---:" for _ in HEAD[1:])), *rows(results)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
