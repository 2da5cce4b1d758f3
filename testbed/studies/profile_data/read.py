"""All data sets in one stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testbed.core.errors import ScenarioError
from testbed.studies.profile_data.devices import read_ai_benchmarks, read_boards, read_gpu_benchmarks
from testbed.studies.profile_data.rows import Row
from testbed.studies.profile_data.servers import read_llmservingsim, read_splitwise, read_vidur


def read_all(data: Path) -> Iterator[Row]:
    """Every row of every data set under `data`; ScenarioError where one is missing."""
    try:
        yield from read_ai_benchmarks(data / "dev-geerling" / "results.csv")
        yield from read_boards(data / "dev-jetson-pi" / "results.csv")
        yield from read_gpu_benchmarks(data / "dev-gpu-benchmarks" / "README.md")
        yield from read_vidur(data / "prof-vidur" / "compute")
        yield from read_llmservingsim(data / "prof-llmservingsim" / "perf")
        yield from read_splitwise(data / "prof-splitwise" / "perf_model.csv")
    except FileNotFoundError as error:
        raise ScenarioError("no such measurement file", file=error.filename) from None
