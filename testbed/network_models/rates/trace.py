"""A rate as it was measured: read from a file, repeated for ever."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from testbed.core.errors import ScenarioError, nearest_name
from testbed.core.units import UNITS
from testbed.network_models.origin import Origin
from testbed.network_models.rates.loop import Loop
from testbed.network_models.rates.segments import Segment
from testbed.network_models.rates.trace_file import read_csv_trace, read_mahimahi, read_seconds
from testbed.scenarios.base import RANDOM, Block, FileName, TimeOrRandom, as_pydantic
from testbed.scenarios.pieces import RateConfig


def _rate_unit(unit: str) -> str:
    known = UNITS["bitrate"]
    if unit not in known:
        nearest = nearest_name(unit, known)
        raise as_pydantic(ScenarioError("unknown unit of a bit rate", value=unit, allowed=list(known), nearest=nearest))
    return unit


class Columns(Block):
    """Where a CSV file with a header row holds times and rates."""

    time: str
    rate: str
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    rate_unit: Annotated[str, AfterValidator(_rate_unit)] = "Mbit/s"


class TraceRate:
    """A file's rates, one after the other, and from the start again.

    `mahimahi`: a line is a millisecond in which one packet of 1,500 bytes may leave; what of it is not used is lost, a
    packet may need several, and several lines may have the same millisecond. The last line's time is the period.
    `seconds`: a line is a time in seconds and the rate in Mbit/s from then on. `csv`: the same in named columns. The
    first line's time is time 0, and the last line holds as long as the one before it did.
    `offset` is how far into the trace the link starts; a random one is uniform over the period and the link's own.
    """

    class Config(RateConfig):
        kind: Literal["trace"] = "trace"
        file: FileName
        format: Literal["mahimahi", "seconds", "csv"]
        columns: Columns | None = None  # of a CSV file
        scale: float = Field(default=1.0, gt=0, le=1e6)  # of every rate
        offset: TimeOrRandom = Field(default=0, validate_default=False)

        @model_validator(mode="after")
        def _columns_of_csv(self) -> Self:
            if (self.columns is None) == (self.format == "csv"):
                problem = "required key is missing" if self.columns is None else "only a csv file has named columns"
                raise as_pydantic(ScenarioError(problem, path="columns", allowed="with format csv: time and rate"))
            return self

    __slots__ = ("_loop", "_offset_ns")

    def __init__(self, config: Config, origin: Origin) -> None:
        self._loop = read_loop(config)
        self._offset_ns = config.offset
        if config.offset == RANDOM:
            self._offset_ns = origin.stream("rate.offset").below(self._loop.period_ns, origin.entity, 0)

    def segment(self, time_ns: int) -> Segment:
        return self._loop.segment(time_ns, self._offset_ns)


def read_loop(config: TraceRate.Config) -> Loop:
    """What the file says; links that share a file share this."""
    try:
        stat = Path(config.file).stat()
    except (OSError, ValueError):
        stamp = None  # reading it says what is wrong
    else:
        stamp = (stat.st_mtime_ns, stat.st_size)
    return _read(config.file, config.format, config.columns, config.scale, stamp)


@lru_cache(maxsize=64)
def _read(file: str, kind: str, columns: Columns | None, scale: float, stamp: tuple[int, int] | None) -> Loop:
    if kind == "mahimahi":
        return read_mahimahi(file, scale=scale)
    if columns is None:
        return read_seconds(file, scale=scale)
    time_s, rate_bps = UNITS["time"][columns.time_unit], UNITS["bitrate"][columns.rate_unit]
    return read_csv_trace(
        file, time_column=columns.time, rate_column=columns.rate, time_unit_s=time_s, rate_unit_bps=rate_bps,
        scale=scale,
    )  # fmt: skip
