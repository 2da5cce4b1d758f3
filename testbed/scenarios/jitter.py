"""Jitter as a link profile describes it: the random part of a delay, by a named law or by measured values."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from testbed.core.errors import ScenarioError
from testbed.core.units import format_seconds, ns_to_seconds
from testbed.scenarios.base import Block, FileName, TimeNs, as_pydantic

JitterLaw = Literal["constant", "uniform", "exponential", "normal", "lognormal", "gamma", "pareto", "empirical"]
_BY_MOMENTS = frozenset({"uniform", "normal", "lognormal", "gamma", "pareto"})  # laws with a mean and a std


class JitterConfig(Block):
    """Extra delay, never negative: a named law by its mean and standard deviation, or `empirical` values.

    Draws are independent, or with a `correlation_time` those of a process in time whose values at instants d apart
    correlate as exp(-d / correlation_time) under the normal law, and accordingly under others.
    """

    law: JitterLaw
    mean: TimeNs | None = None
    std: TimeNs = 0
    values: Annotated[tuple[TimeNs, ...], Field(strict=False)] | None = None  # of `empirical`, in any order
    file: FileName | None = None  # of `empirical`: a time a line
    correlation_time: TimeNs = 0
    reorder: bool = True  # false: what leaves later never arrives earlier
    per: Literal["message", "packet"] = "message"

    @property
    def needs_packets(self) -> str:
        """Why a link with this jitter can't be computed message by message; "" where it can."""
        return "each packet has a jitter of its own" if self.per == "packet" else ""

    @model_validator(mode="after")
    def _keys_fit_law(self) -> Self:
        if self.law == "empirical":
            self._check_empirical()
            return self
        for key in ("values", "file"):
            if getattr(self, key) is not None:
                raise _at(key, f"jitter law {self.law!r} has no {key}", allowed="with law empirical")
        if self.mean is None:
            raise _at("mean", f"jitter law {self.law!r} needs a mean")
        if self.law in _BY_MOMENTS and not (self.mean and self.std):
            zero = "mean" if self.mean == 0 else "std"
            raise _at(zero, f"jitter law {self.law!r} needs a mean and a std", value="0 s", allowed="more than 0")
        if self.law not in _BY_MOMENTS and self.std:
            raise _at("std", f"jitter law {self.law!r} has no std", value=_seconds(self.std), allowed="0, or no std")
        return self

    def _check_empirical(self) -> None:
        for key in ("mean", "std"):
            if getattr(self, key):
                raise _at(key, f"an empirical jitter has no {key}: its values say it", allowed=f"no {key}")
        if (self.values is None) == (self.file is None):
            raise _at("values", "an empirical jitter needs values or a file", allowed="one of the two")
        if self.values == ():
            raise _at("values", "an empirical jitter needs at least one value", allowed="a list of times")


def _at(key: str, problem: str, *, value: str | None = None, allowed: str | None = None) -> PydanticCustomError:
    """A fault that shows only beside other keys, at the key to change."""
    return as_pydantic(ScenarioError(problem, path=key, value=value, allowed=allowed))


def _seconds(time_ns: int) -> str:
    return format_seconds(ns_to_seconds(time_ns))
