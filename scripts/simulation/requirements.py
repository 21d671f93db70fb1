"""Print what Home Assistant would install by itself for the integrations that the demo and the tests use.

The versions come from Home Assistant's own manifests, so they follow the version that is installed.
"""

import json
from pathlib import Path

import homeassistant.components

INTEGRATIONS = ("bluetooth", "default_config", "esphome", "frontend", "mqtt")
# Left out of default_config's closure: what needs the internet or a sound card to be of any use.
SKIPPED = {"cloud", "go2rtc", "mobile_app", "default_config"}
# Needed by the web server's login, and in no manifest.
UNLISTED = ("pyotp==2.10.0", "PyQRCode==1.2.1")


def requirements(*integrations: str) -> set[str]:
    """Return the pinned requirements of integrations and of all that they depend on."""
    base = Path(homeassistant.components.__path__[0])
    todo = list(integrations)
    seen: set[str] = set()
    found: set[str] = set()
    while todo:
        if (domain := todo.pop()) in seen:
            continue
        seen.add(domain)
        manifest = json.loads((base / domain / "manifest.json").read_text())
        found.update(manifest.get("requirements", ()))
        todo.extend(manifest.get("dependencies", ()))
    return found


if __name__ == "__main__":
    print(*sorted(requirements("frontend", "mqtt", "esphome", "bluetooth", "history", "logbook", "logger", "system_health", "diagnostics", "onboarding", "my").union(UNLISTED), key=str.lower), sep="\n")
