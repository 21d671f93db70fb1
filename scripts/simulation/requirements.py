"""Print what Home Assistant would install by itself for the integrations that we use.

The versions come from Home Assistant's own manifests, so they follow the version that is
installed.
"""

from collections.abc import Iterable
import json
from pathlib import Path

import homeassistant.components

# What the demo and the tests load, what ESPHome loads beside it, and what Home Assistant
# discovers in the frames of the simulated home. What writes metrics is prometheus's.
INTEGRATIONS = (
    *("bluetooth", "diagnostics", "esphome", "frontend", "history", "logbook", "mqtt"),
    *("my", "onboarding", "prometheus", "repairs", "system_health"),
    *("camera", "infrared", "radio_frequency"),
    # The parser libraries that the decoders use.
    *("aranet", "bluemaestro", "bthome", "govee_ble", "ibeacon", "inkbird", "kegtron"),
    *("leaone", "moat", "mopeka", "oralb", "qingping", "rapt_ble", "ruuvitag_ble"),
    *("sensirion_ble", "sensorpro", "sensorpush", "switchbot", "thermobeacon"),
    *("thermopro", "tilt_ble", "victron_ble", "xiaomi_ble"),
)
# Needed by the web server's login, and in no manifest.
UNLISTED = ("pyotp==2.10.0", "PyQRCode==1.2.1")


def requirements(integrations: Iterable[str]) -> set[str]:
    """Return the pinned requirements of integrations and of all that they depend on."""
    base = Path(homeassistant.components.__path__[0])
    todo = list(integrations)
    seen: set[str] = set()
    found: set[str] = set()
    while todo:
        if (domain := todo.pop()) in seen:
            continue
        seen.add(domain)
        if not (manifest := base / domain / "manifest.json").exists():
            continue  # Not in this version
        details = json.loads(manifest.read_text(encoding="utf-8"))
        found.update(details.get("requirements", ()))
        todo.extend(details.get("dependencies", ()))
    return found


if __name__ == "__main__":
    print(*sorted({*requirements(INTEGRATIONS), *UNLISTED}, key=str.lower), sep="\n")
