"""Let everything fail around a real Home Assistant with BLE Bridge, and count what is lost."""

import argparse
import asyncio
from dataclasses import asdict
import json
from pathlib import Path
from random import Random, randrange
import signal
import sys
import time
from typing import Final

from rich.console import Console
from rich.table import Table

from scripts.demo_app import empty_directory, positive
from scripts.simulation.chaos.faults import FAULTS, Fault, find
from scripts.simulation.chaos.house import House, private_mounts
from scripts.simulation.chaos.run import HEAD, Result, Run, markdown, rows
from scripts.simulation.processes import REPOSITORY, SimulationError

PROGRAM: Final = "scripts/chaos"
DIRECTORY: Final = REPOSITORY / ".chaos"
MINUTES: Final = 10.0
# How long a fault lasts in a long run, in parts of its own time.
SHORTEST: Final = 0.5
LONGEST: Final = 3.0
EPILOG: Final = """\
Four devices say a number each, five times a second, beside 200 advertisements a
second that nobody counts. Readings are durable and go to four destinations: MQTT at
QoS 1, the same with TLS, NATS with JetStream, and InfluxDB 1. Most faults hit MQTT,
NATS and InfluxDB in the same moment. Behind each, a subscriber, a reader of the stream
or one who asks the store notes which numbers arrive.

sent          numbers that Home Assistant heard for certain, times destinations hit
acknowledged  readings that the servers confirmed, by the integration's own count
delivered     different numbers that arrived
duplicates    further copies that arrived, but for those that the broker repeats itself;
              in JetStream and in InfluxDB there must be none
written_off   damaged on the disk (a fault, too), or set aside after it was refused
lost          sent - delivered - written_off
recovery_s    seconds from the end of a fault until all that was said had arrived
              everywhere; recoveries has them for each destination

What is said while Home Assistant is stopped, killed or loads the integration anew is
not counted; a number that was on its way to it within 0.3 s before neither.

Exit status: 0 if all promises held, 1 if not, or if it failed. What Home Assistant and
the servers wrote stays in .chaos/ until the next start.

faults: """


class Chaos:
    """The run from its start to its end."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Prepare a run with the options of the command line."""
        self._options = options
        self._start = time.monotonic()
        self._seed: int = (
            options.seed if options.seed is not None else randrange(1 << 32)
        )

    async def run(self) -> Run:
        """Run until the time is over, each fault was had, or a signal arrives."""
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel if task else loop.stop)
        mounts = private_mounts()
        directory: Path = self._options.directory
        with empty_directory(directory):
            self._say(f"seed {self._seed}; starting servers and Home Assistant")
            async with House(directory, self._seed, mounts=mounts) as house:
                run = Run(house, Random(self._seed), steady=self._options.markdown)
                if self._options.only or self._options.each:
                    for name in self._options.only or FAULTS:
                        await self._fault(run, find(name), None)
                else:
                    await self._until_time_is_over(run)
                self._say("stopping everything")
        return run

    async def _until_time_is_over(self, run: Run) -> None:
        """Have faults in any order, for any time."""
        random = Random(self._seed)
        end = time.monotonic() + 60 * (self._options.minutes or MINUTES)
        while time.monotonic() < end:
            fault = random.choice(list(FAULTS.values()))
            seconds = fault.seconds * random.uniform(SHORTEST, LONGEST)
            await self._fault(run, fault, seconds)

    async def _fault(self, run: Run, fault: Fault, seconds: float | None) -> None:
        """Do one fault, and tell of it."""
        self._say(fault.title)
        result = await run.fault(fault, seconds)
        recovery = (
            f"{result.recovery_s} s" if result.recovery_s is not None else "never"
        )
        self._say(
            f"  recovery {recovery}, sent {result.sent}, lost {result.lost},"
            f" doubled {result.duplicates}, {result.rss_mb} MiB"
        )
        for failure in result.failures:
            self._say(f"  ! {failure}")
        if self._options.stream:
            print(json.dumps(asdict(result)), flush=True)

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._start:6.1f} s  {text}", file=sys.stderr)


def show(results: list[Result]) -> None:
    """Print the table of faults."""
    table = Table(*HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows(results):
        table.add_row(*row)
    Console().print(table)


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        epilog=EPILOG + ", ".join(FAULTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes", type=positive, metavar="N", help=f"how long ({MINUTES:g})"
    )
    length.add_argument(
        "--hours",
        dest="minutes",
        type=lambda text: 60 * positive(text),
        metavar="N",
        help="the same in hours",
    )
    length.add_argument("--each", action="store_true", help="each fault once")
    length.add_argument(
        "--only", action="append", metavar="NAME", help="this fault once; repeatable"
    )
    parser.add_argument("--seed", type=int, help="repeat a run's choices")
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--json", action="store_true", help="print the numbers as one JSON object"
    )
    output.add_argument(
        "--markdown",
        action="store_true",
        help="print the table of docs/delivery.md; each fault meets connections of 10 s",
    )
    output.add_argument(
        "--stream", action="store_true", help="print each fault's numbers as it ends"
    )
    parser.add_argument(
        "--directory", type=Path, default=DIRECTORY, help=argparse.SUPPRESS
    )
    return parser.parse_args()


def main() -> int:
    """Run, and return the exit status."""
    options = parse_options()
    try:
        run = asyncio.run(Chaos(options).run())
    except SimulationError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("error: Stopped before its end.", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(run.summary()))
    elif options.markdown:
        print(markdown(run.results))
    elif not options.stream:
        show(run.results)
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
