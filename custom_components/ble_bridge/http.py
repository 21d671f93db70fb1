"""What is asked over HTTP, with a token of any user: health and metrics.

Neither tells of a device, or of anything that is secret.
"""

from http import HTTPStatus

from aiohttp import web
from aiohttp.hdrs import ACCEPT, CONTENT_TYPE
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.http import HomeAssistantView
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from .const import DOMAIN
from .health import async_health
from .metrics import BridgeCollector


@callback
def async_setup_views(hass: HomeAssistant) -> None:
    """Answer from now on, whether or not there is a bridge."""
    hass.http.register_view(HealthView(hass))
    hass.http.register_view(MetricsView(hass))


class HealthView(HomeAssistantView):
    """Tells whether all is well."""

    url = f"/api/{DOMAIN}/health"
    name = f"api:{DOMAIN}:health"

    def __init__(self, hass: HomeAssistant) -> None:
        """Initialize the view."""
        self._hass = hass

    @callback
    def get(self, _request: web.Request) -> web.Response:
        """Answer 200 where all is well, else 503."""
        health = async_health(self._hass)
        if health["problems"]:
            return self.json(health, HTTPStatus.SERVICE_UNAVAILABLE)
        return self.json(health)


class MetricsView(HomeAssistantView):
    """Tells all figures, as Prometheus reads them, or OpenMetrics where that is asked for."""

    url = f"/api/{DOMAIN}/metrics"
    name = f"api:{DOMAIN}:metrics"

    def __init__(self, hass: HomeAssistant) -> None:
        """Initialize with a registry of our own."""
        self._registry = CollectorRegistry()
        self._registry.register(BridgeCollector(hass))

    @callback
    def get(self, request: web.Request) -> web.Response:
        """Answer with the figures of now."""
        encode, content_type = choose_encoder(request.headers.get(ACCEPT, ""))
        return web.Response(
            body=encode(self._registry), headers={CONTENT_TYPE: content_type}
        )
