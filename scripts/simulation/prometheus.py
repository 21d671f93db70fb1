"""A real Prometheus on the loopback address."""

import asyncio
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any, override

from .metrics_stores import PrometheusApi
from .processes import LOOPBACK, POLL_SECONDS, SimulationError


class Prometheus(PrometheusApi):
    """A Prometheus process that scrapes what it is told to.

    `Prometheus({"job_name": "house", "static_configs": [{"targets": [...]}]})`
    """

    name = "Prometheus"
    program = "prometheus"
    ready_path = "/-/ready"

    def __init__(
        self,
        *scrape_configs: Mapping[str, Any],
        port: int = 0,
        interval: str = "1s",
        directory: Path | None = None,
    ) -> None:
        """Describe what to scrape, each job as in `scrape_configs` of its own file.

        What a job says of how often it is scraped stands, else it is the interval.
        """
        super().__init__(port, directory=directory)
        self._scrape_configs = scrape_configs
        self._interval = interval

    async def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped, with `health`, `lastError`, `lastScrape`, …."""
        answer = json.loads(await self.request("GET", "/api/v1/targets"))
        found: list[dict[str, Any]] = answer["data"]["activeTargets"]
        return found

    async def wait_scraped(self, jobs: Sequence[str] = (), timeout: float = 20) -> None:
        """Wait until all targets, or those of some jobs, were scraped with success.

        Prometheus begins some five seconds after it has started.
        """
        targets: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(timeout):
                while True:
                    targets = [
                        target
                        for target in await self.targets()
                        if not jobs or target["labels"]["job"] in jobs
                    ]
                    # What was scraped can be asked for a moment later.
                    labels = [sample.labels for sample in await self.query("up == 1")]
                    if targets and all(
                        any(target["labels"].items() <= up.items() for up in labels)
                        for target in targets
                    ):
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            errors = {target["scrapeUrl"]: target["lastError"] for target in targets}
            raise SimulationError(f"Prometheus could not scrape: {errors}") from None

    @override
    def _arguments(self) -> list[str | Path]:
        configuration = self._directory / "prometheus.yml"
        # JSON is YAML too.
        configuration.write_text(
            json.dumps(
                {
                    "global": {
                        "scrape_interval": self._interval,
                        "scrape_timeout": self._interval,
                    },
                    "scrape_configs": list(self._scrape_configs),
                }
            ),
            encoding="utf-8",
        )
        configuration.chmod(0o600)
        return [
            f"--config.file={configuration}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            f"--storage.tsdb.path={self._directory / 'data'}",
        ]
