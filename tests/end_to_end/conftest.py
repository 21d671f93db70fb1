"""A whole Home Assistant with a broker and a subscriber."""

from collections.abc import AsyncIterator
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
import pytest
import pytest_socket

from scripts.simulation.broker import Mosquitto
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.processes import REPOSITORY
from scripts.simulation.subscriber import Message

BRIDGE_FORM = {"name": "BLE Bridge", "bridge_id": "home", "host": "127.0.0.1"}


@pytest.fixture(autouse=True)
def allow_unix_sockets(socket_enabled: None) -> None:
    """Let the simulated BlueZ reach its D-Bus daemon."""
    pytest_socket.socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)


@pytest.fixture(name="home_assistant")
async def home_assistant_fixture(
    tmp_path: Path,
) -> AsyncIterator[HomeAssistantProcess]:
    """Return a running Home Assistant."""
    async with HomeAssistantProcess(tmp_path) as home_assistant:
        yield home_assistant


async def add_bridge(
    home_assistant: HomeAssistantProcess,
    broker: Mosquitto,
    *,
    values: bool = False,
    **advanced: Any,
) -> str:
    """Set up BLE Bridge through its form, and return the ID of its entry."""
    result = await home_assistant.flow(
        "ble_bridge",
        {"next_step_id": "to_mqtt"},
        {
            **BRIDGE_FORM,
            "port": broker.port,
            "advanced": advanced,
            "fields": {},
            "values": {"enabled": values},
        },
    )
    assert result["type"] == "create_entry", result
    entry_id: str = result["result"]["entry_id"]
    return entry_id


def validate(messages: list[Message], schema: str) -> None:
    """Validate messages against a schema of the documentation."""
    text = (REPOSITORY / "docs/schemas" / f"{schema}.json").read_text(encoding="utf-8")
    validator = Draft202012Validator(json.loads(text))
    for message in messages:
        validator.validate(message.json())


def complaints(home_assistant: HomeAssistantProcess) -> list[str]:
    """Return the lines of the log that are about us and worse than info."""
    return [
        line
        for line in home_assistant.log_tail(100_000).splitlines()
        if "ble_bridge" in line
        and ("ERROR" in line or "WARNING" in line)
        and "has not been tested by Home Assistant" not in line
    ]
