"""Beside Home Assistant's own MQTT integration, whose broker is offered."""

from scripts.simulation.broker import Mosquitto
from scripts.simulation.home_assistant import HomeAssistantProcess
from scripts.simulation.subscriber import Subscriber

from .conftest import complaints


async def test_the_broker_that_home_assistant_uses(
    home_assistant: HomeAssistantProcess,
) -> None:
    """It takes one click, no password is asked for or stored, and a restart is fine."""
    async with (
        Mosquitto(users={"home": "assistant"}) as broker,
        Subscriber(broker.port, username="home", password="assistant") as subscriber,
    ):
        result = await home_assistant.flow(
            "mqtt",
            {
                "broker": "127.0.0.1",
                "port": broker.port,
                "username": "home",
                "password": "assistant",
                "other_settings": {"set_ca_cert": "off", "set_client_cert": False},
            },
        )
        assert result["type"] == "create_entry", result
        result = await home_assistant.flow(
            "ble_bridge",
            {"next_step_id": "to_mqtt"},
            {
                "name": "BLE Bridge",
                "bridge_id": "home",
                "broker": "home_assistant",
                "advanced": {},
            },
        )
        assert result["type"] == "create_entry", result
        entry_id = result["result"]["entry_id"]
        await subscriber.wait_for_message("ble/bridge/home/status", b"online")
        stored = home_assistant.config_dir / ".storage/core.config_entries"
        await home_assistant.stop()
        assert stored.read_text(encoding="utf-8").count('"assistant"') == 1
        subscriber.messages.clear()
        await home_assistant.start()
        await subscriber.wait_for_message("ble/bridge/home/status", b"online", 60)
        (destination,) = (await home_assistant.diagnostics(entry_id))["destinations"]
        assert destination["connected"]
        assert destination["protocol"] == "5"
        assert complaints(home_assistant) == []
