"""Arrivals as a file has them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from testbed.core.rng import I64Array
from testbed.scenarios.base import FileName
from testbed.scenarios.workload import ArrivalConfig
from testbed.workloads.members import Members
from testbed.workloads.openings import Openings, dealt
from testbed.workloads.trace_file import read_trace


class Trace:
    """A CSV file with a header row gives the arrivals of the whole group; each goes to a device drawn by key.

    `prompt_column` and `output_column`, where given, also set the lengths (with random prompt ids). Dates count from
    the first row's, numbers from the start of the run.
    """

    class Config(ArrivalConfig):
        kind: Literal["trace"] = "trace"
        file: FileName
        time_column: str
        time_unit: Literal["s", "ms", "us", "ns", "date"] = "s"
        prompt_column: str | None = None
        output_column: str | None = None
        limit: int | None = Field(default=None, ge=1)

        @property
        def sets_lengths(self) -> bool:
            return self.prompt_column is not None or self.output_column is not None

    def __init__(self, config: Config) -> None:
        self._config = config

    def expected_count(self, members: Members) -> None:
        """The file says it."""

    def openings(self, members: Members) -> Openings:
        config = self._config
        rows = read_trace(
            config.file,
            time_column=config.time_column,
            time_unit=config.time_unit,
            columns=(config.prompt_column, config.output_column),
            limit=config.limit,
        )
        place, counter = dealt(members, len(rows.arrival_ns))
        return Openings(
            place=place,
            counter=counter,
            arrival_ns=np.array(rows.arrival_ns, dtype=np.int64),
            prompt_tokens=_counts(rows.counts[0]),
            output_tokens=_counts(rows.counts[1]),
        )


def _counts(values: list[int] | None) -> I64Array | None:
    return None if values is None else np.array(values, dtype=np.int64)
