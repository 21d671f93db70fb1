"""Draw the pictures of the documentation; runs where matplotlib is, and nothing else.

    python -m benchmarks.draw NAME FILE < DATA

It reads what was measured as JSON. NAME is one of `PICTURES`.
"""

from itertools import pairwise
import json
from pathlib import Path
import sys
from typing import Any, Final

import matplotlib as mpl
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK: Final = "#1f2933"
SOFT: Final = "#8a94a0"
GRID: Final = "#e6eaee"
BLUE: Final = "#0b6bcb"
COLOURS: Final = {
    "BLE Bridge": BLUE,
    "BLE Bridge, QoS 1": "#66a9e8",
    "paho publish": "#d97706",
    "mqtt.async_publish": "#c2413b",
    "Theengs Gateway": "#7a5195",
}
STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
}


def number(value: float, _position: object = None) -> str:
    """Return a number as people write it."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def head(figure: Figure, title: str, rest: str) -> None:
    """Write what there is to see over a picture."""
    figure.text(0.02, 0.985, title, fontsize=14, fontweight="bold", va="top")
    figure.text(0.02, 0.925, rest, color=SOFT, va="top")


def rate(data: dict[str, Any], figure: Figure) -> None:
    """CPU against rate, for BLE Bridge and its peers."""
    figure.set_size_inches(9, 5.4)
    axes = figure.add_axes((0.075, 0.11, 0.71, 0.73))
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = []
    for name, points in data["ways"].items():
        kept = [(x, y) for x, y in points if y > 0]
        colour = COLOURS[name]
        ours = name == "BLE Bridge"
        axes.plot(
            *zip(*kept, strict=True),
            color=colour,
            marker="o",
            markersize=4.5,
            linewidth=3 if ours else 2,
            zorder=4 if ours else 3,
        )
        ends.append((*kept[-1], name, colour))
    axes.axhline(100, color=INK, linewidth=1, zorder=2)
    axes.text(85, 108, "one core", color=INK, fontsize=9, va="bottom")
    axes.set_xlim(80, 70_000)
    axes.set_ylim(0.1, 200)
    axes.set_xticks([100, 1_000, 10_000, 50_000])
    axes.xaxis.set_major_formatter(number)
    axes.yaxis.set_major_formatter(number)
    axes.minorticks_off()
    axes.set_xlabel("advertisements a second")
    place = 0.0
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        place = max(y, place * 1.35)  # So that no name stands on another
        axes.annotate(
            name,
            (x, y),
            xytext=(75_000, place),
            color=colour,
            fontweight="bold",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.8,
                "linestyle": (0, (1, 3)),
                "shrinkA": 2,
                "shrinkB": 6,
            },
        )
    head(
        figure,
        "CPU of publishing every advertisement",
        "% of a core beyond what Home Assistant's Bluetooth stack needs; "
        "a line ends where it could not keep up",
    )


def devices(data: dict[str, Any], figure: Figure) -> None:
    """Cost of an advertisement and memory, against the number of devices."""
    figure.set_size_inches(9, 4.2)
    panels = (
        ("cost", "CPU of an advertisement (µs)", "µs", 0.06),
        ("memory", "Memory (MB)", "MB", 0.56),
    )
    for key, title, unit, left in panels:
        axes = figure.add_axes((left, 0.15, 0.4, 0.56))
        points = data[key]
        axes.set_xscale("log")
        axes.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=5)
        axes.fill_between(*zip(*points, strict=True), color=BLUE, alpha=0.08)
        axes.set_ylim(0, max(y for _, y in points) * 1.3)
        axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=10)
        axes.set_xticks([x for x, _ in points])
        axes.xaxis.set_major_formatter(number)
        axes.minorticks_off()
        axes.set_xlabel("devices on air, each heard by four scanners")
        for x, y in points:
            axes.annotate(
                f"{y:.1f}" if unit == "µs" or y < 10 else f"{y:.0f}",
                (x, y),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
    head(
        figure,
        "What more devices cost",
        "beyond Home Assistant's Bluetooth stack; every packet published, QoS 0",
    )


def soak(data: dict[str, Any], figure: Figure) -> None:
    """Rates, loop lag, memory and losses over time."""
    figure.set_size_inches(9, 8)
    samples, step = data["samples"], data["step"]
    minutes = [sample["minute"] for sample in samples]

    def panel(place: int, title: str) -> Axes:
        axes = figure.add_axes((0.08, 0.715 - 0.215 * place, 0.89, 0.145))
        axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=7)
        axes.yaxis.set_major_formatter(number)
        axes.yaxis.set_major_locator(ticker.MaxNLocator(4))
        axes.set_xlim(0, minutes[-1])
        axes.margins(y=0.15)
        if place == 3:
            axes.set_xlabel("minutes")
        else:
            axes.tick_params(labelbottom=False)
        return axes

    def sent(base: str) -> list[float]:
        totals = [0, *(sample["destinations"][base]["sent"] for sample in samples)]
        return [(now - then) / step for then, now in pairwise(totals)]

    axes = panel(0, "Messages a second")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(number)
    axes.step(minutes, sent("ble"), color=BLUE, where="post", label="fast destination")
    axes.step(
        minutes, sent("ble2"), color="#d97706", where="post", label="slow destination"
    )
    axes.minorticks_off()
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9
    )
    axes = panel(1, "Longest delay of the event loop (ms)")
    axes.bar(
        minutes,
        [sample["late"] for sample in samples],
        width=step / 60 * 0.8,
        align="edge",
        color=BLUE,
    )
    axes.set_ylim(bottom=0)
    axes = panel(2, "Memory of Home Assistant's process (MB)")
    memory = [sample["memory"] for sample in samples]
    axes.plot(minutes, memory, color=BLUE)
    axes.fill_between(minutes, memory, color=BLUE, alpha=0.08)
    axes.set_ylim(0, max(memory) * 1.2)
    axes = panel(3, "Dropped, and counted as such (messages in all)")
    for base, colour in (("ble", BLUE), ("ble2", "#d97706")):
        dropped = [sample["destinations"][base]["dropped"] for sample in samples]
        axes.plot(minutes, dropped, color=colour)
    axes.set_ylim(bottom=0)
    figure.text(
        0.02,
        0.985,
        "A soak with a slow destination",
        fontsize=14,
        fontweight="bold",
        va="top",
    )
    figure.text(
        0.02,
        0.95,
        "addresses that rotate, rates that change, two destinations; "
        "one of them takes some 700 messages a second",
        color=SOFT,
        va="top",
    )


PICTURES: Final = {
    "performance-rate": rate,
    "performance-devices": devices,
    "soak": soak,
}


def main(name: str, path: Path) -> None:
    """Draw one picture."""
    mpl.rcParams.update(STYLE)
    figure = Figure()
    PICTURES[name](json.load(sys.stdin), figure)
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
