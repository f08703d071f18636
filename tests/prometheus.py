"""A real Prometheus that scrapes what a test names; where the machine has none, its tests are skipped visibly."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server import free_port

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus on this machine")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine")

_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end; what it says is in ``stdout`` and ``stderr``."""
    assert PROMTOOL, "mark the test with needs_promtool"
    command = [PROMTOOL, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


class PrometheusServer:
    """One Prometheus over a folder of its own, for use in a ``with``.

    Args:
        folder: made, for its configuration, data and log.
        scrapes: job name -> whole address, such as ``{"ai-lab": "http://127.0.0.1:8001/metrics"}``.
        rule_files: rules to evaluate.
        interval_seconds: between two scrapes, and between two evaluations of the rules.
    """

    def __init__(
        self,
        folder: Path,
        scrapes: Mapping[str, str],
        *,
        rule_files: Iterable[Path] = (),
        interval_seconds: int = 1,
    ) -> None:
        self._folder = folder
        self.port = free_port()
        self._log_file = folder / "prometheus.log"
        self._scrapes = dict(scrapes)
        self._rule_files = [str(path) for path in rule_files]
        self._interval = f"{interval_seconds}s"
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api/v1", timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        assert PROMETHEUS, "mark the test with needs_prometheus"
        self._folder.mkdir(exist_ok=True)
        configuration = self._folder / "prometheus.yml"
        configuration.write_text(json.dumps(self._configuration()), encoding="utf-8")  # JSON is YAML
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--enable-feature=exemplar-storage",
                    "--log.level=warn",
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        self._client.close()

    @property
    def log(self) -> str:
        """Return what it logged: warnings and errors."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def api(self, path: str, **parameters: str | float) -> Any:
        """Return ``data`` of an API answer, such as ``api("metadata")``.

        Raises:
            AssertionError: Prometheus answered with an error; its text is the message.
        """
        body = self._client.get(path, params=parameters).json()
        assert body["status"] == "success", f"{path} {parameters}: {body['error']}"
        return body["data"]

    def query(self, expression: str) -> dict[str, float]:
        """Return the present value of every series of an instant vector or scalar.

        Returns:
            Labels as sorted JSON -> value; a scalar has the key ``{}``.
        """
        data = self.api("query", query=expression)
        if data["resultType"] == "scalar":
            return {"{}": float(data["result"][1])}
        return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in data["result"]}

    def by_job(self, expression: str) -> dict[str, float]:
        """Return the present values of an expression whose series differ in their job."""
        return {json.loads(labels).get("job", ""): value for labels, value in self.query(expression).items()}

    def exemplars(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of the exemplars stored in the last hour."""
        end = time.time()
        found = self.api("query_exemplars", query=expression, start=end - 3600, end=end)
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped: ``health`` (up, down, unknown), ``lastError``, ``labels`` and more of each."""
        active: list[dict[str, Any]] = self.api("targets")["activeTargets"]
        return active

    def wait_for(self, expression: str, timeout_seconds: float = 60) -> dict[str, float]:
        """Return the answer of ``query`` as soon as it is not empty.

        Raises:
            AssertionError: it stayed empty; the message says how the scrapes went.
        """
        found: dict[str, float] = {}

        def is_there() -> bool:
            found.update(self.query(expression))
            return bool(found)

        self.wait_until(is_there, timeout_seconds)
        return found

    def wait_until(self, holds: Callable[[], bool], timeout_seconds: float = 60) -> None:
        """Return as soon as ``holds``.

        Raises:
            AssertionError: it never did; the message says how the scrapes went.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if holds():
                return
            time.sleep(_LOOK_SECONDS * 4)
        scrapes = [(target["scrapeUrl"], target["health"], target["lastError"]) for target in self.targets()]
        raise AssertionError(f"not so within {timeout_seconds:g} s; scrapes: {scrapes}\n{self.log[-2000:]}")

    def _configuration(self) -> dict[str, Any]:
        jobs = []
        for job, address in self._scrapes.items():
            parts = urlsplit(address)
            static = [{"targets": [parts.netloc]}]
            jobs.append({"job_name": job, "scheme": parts.scheme, "metrics_path": parts.path, "static_configs": static})
        intervals = {"scrape_interval": self._interval, "evaluation_interval": self._interval}
        return {
            "global": intervals | {"scrape_timeout": self._interval},
            "rule_files": self._rule_files,
            "scrape_configs": jobs,
        }

    def _wait_until_ready(self) -> None:
        assert self._process
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/-/ready", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_LOOK_SECONDS)
        raise AssertionError(f"Prometheus did not become ready:\n{self.log[-4000:]}")
