"""A real Prometheus for the tests, that scrapes real instances every second."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.fetch import fetch
from tests.harness import LIMIT_S
from tests.ports import free_port
from tests.programs import program
from tests.queries import ALERTS


class Prometheus:
    """Knows our alerts, and the instances under the job name that our configurations give them.

    Args:
        directory: For its configuration and its data.
        targets: `host:port` of each instance.
    """

    def __init__(self, directory: Path, *targets: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = directory / "prometheus.log"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "seatws", "static_configs": [{"targets": targets}]}],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=log,
            )

    async def query(self, query: str) -> list[dict[str, Any]]:
        """The answer to a query: samples, each with `metric` and `value`; none before it is up.

        Raises:
            AssertionError: Prometheus finds something wrong with it.
        """
        assert self._process.poll() is None, self._log.read_text()
        try:
            response = await fetch(f"{self.url}/api/v1/query?{urlencode({'query': query})}")
        except OSError:  # it does not listen yet
            return []
        if response.code == 503:  # it still reads its data
            return []
        answer = json.loads(response.body)
        assert answer["status"] == "success", answer
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(LIMIT_S)
