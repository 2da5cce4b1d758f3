"""Block fading: the channel is still for a coherence time, then another draw of its law, with Shannon's capacity."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Self

from pydantic import Field, model_validator

from testbed.core.capacity import shannon_bps
from testbed.core.errors import ScenarioError
from testbed.core.portable import decibels_of, from_decibels, normal_pair
from testbed.core.units import NS_PER_S
from testbed.network_models.origin import Origin
from testbed.network_models.rates.segments import Segment
from testbed.scenarios.base import (
    BitRate,
    Block,
    Decibels,
    Level,
    PositiveDecibels,
    PositiveDistance,
    PositiveTimeNs,
    Spectrum,
    Speed,
    as_pydantic,
)
from testbed.scenarios.pieces import RateConfig
from testbed.scenarios.propagation import LIGHT_M_PER_S

NOISE_DBM_PER_HZ = -174.0  # thermal, at 290 K
# Clarke's model: over this many periods of the largest Doppler shift the channel's correlation falls to about a half
# (Rappaport, Wireless Communications, section 5.4.3).
COHERENCE_DOPPLER = 0.423


class PathLoss(Block):
    """A received power by distance: free space to the reference distance, a power law beyond it, shadowing on top.

    L(d) = 20 log10(4 pi d0 f / c) + 10 n log10(d / d0) + X,  X ~ N(0, shadowing^2) in dB, drawn once a link.
    """

    distance: PositiveDistance
    transmit_power: Level
    exponent: float = Field(default=2.0, ge=1, le=8)  # 2: free space
    reference: PositiveDistance = Field(default=1.0, validate_default=False)
    antenna_gain: Decibels = Field(default=0.0, validate_default=False)  # of both ends together
    noise_figure: Decibels = Field(default=0.0, validate_default=False)
    shadowing: PositiveDecibels = Field(default=0.0, validate_default=False)  # standard deviation

    @model_validator(mode="after")
    def _beyond_reference(self) -> Self:
        if self.distance < self.reference:
            allowed = f"at least the reference distance of {self.reference:g} m"
            raise _at("distance", "too near for this law", value=f"{self.distance:g} m", allowed=allowed)
        return self

    def mean_snr_db(self, *, carrier_hz: float, bandwidth_hz: float, shadowing: float) -> float:
        """With a standard normal draw of the shadowing."""
        near_db = 2 * decibels_of(4 * math.pi * self.reference * carrier_hz / LIGHT_M_PER_S)
        lost_db = near_db + self.exponent * decibels_of(self.distance / self.reference) + shadowing * self.shadowing
        noise_dbm = NOISE_DBM_PER_HZ + decibels_of(bandwidth_hz) + self.noise_figure
        return self.transmit_power + self.antenna_gain - lost_db - noise_dbm


class FadingConfig(RateConfig):
    """Keys of both fading laws. The mean is that of the power, over the fading and not over the shadowing."""

    bandwidth: Spectrum
    snr: Decibels | None = None  # mean
    path_loss: PathLoss | None = None  # in place of snr
    coherence_time: PositiveTimeNs | None = None
    speed: Speed | None = None  # in place of coherence_time
    carrier: Spectrum | None = None  # for path_loss and speed
    efficiency: float = Field(default=1.0, gt=0, le=1)  # of Shannon's capacity
    max_rate: BitRate | None = None  # of the best modulation

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _one_of(self, "snr", "path_loss", "fading needs a mean signal-to-noise ratio")
        _one_of(self, "coherence_time", "speed", "block fading needs a coherence time")
        if self.carrier is None and (self.path_loss or self.speed):
            raise _at("carrier", "path loss and speed need the carrier's frequency", allowed="such as 2.6 GHz")
        return self

    @property
    def coherence_ns(self) -> int:
        if self.coherence_time is not None:
            return self.coherence_time
        assert self.speed is not None, "checked when it was read"
        assert self.carrier is not None, "checked when it was read"
        return max(1, round(COHERENCE_DOPPLER * LIGHT_M_PER_S / (self.speed * self.carrier) * NS_PER_S))

    def mean_snr(self, origin: Origin) -> float:
        """Both directions of a link lie in the same shadow."""
        if self.path_loss is None:
            assert self.snr is not None, "checked when it was read"
            return from_decibels(self.snr)
        assert self.carrier is not None, "checked when it was read"
        shadowing, _ = normal_pair(origin.link_stream("shadowing"), origin.entity, 0)
        return from_decibels(
            self.path_loss.mean_snr_db(carrier_hz=self.carrier, bandwidth_hz=self.bandwidth, shadowing=shadowing)
        )


class BlockFading(ABC):
    """Block k lasts from k to k + 1 coherence times; its power gain, of mean 1, is drawn by its number."""

    def __init__(self, config: FadingConfig, origin: Origin) -> None:
        self._config = config
        self._stream = origin.stream("rate.fading")
        self._entity = origin.entity
        self._coherence_ns = config.coherence_ns
        self._mean_snr = config.mean_snr(origin)
        self._block, self._rate_bps = -1, 0
        if self._rate_at(self._mean_snr) < 1:
            raise ScenarioError(
                "the channel carries less than 1 bit/s at its mean signal-to-noise ratio",
                value=f"{decibels_of(max(self._mean_snr, 1e-30)):.3g} dB",
            )

    @abstractmethod
    def gain(self, block: int) -> float:
        """|h|^2 of one block."""

    def snr(self, time_ns: int) -> float:
        """The ratio of powers at an instant."""
        return self._mean_snr * self.gain(time_ns // self._coherence_ns)

    def segment(self, time_ns: int) -> Segment:
        block = time_ns // self._coherence_ns
        if block != self._block:
            self._block, self._rate_bps = block, self._rate_at(self._mean_snr * self.gain(block))
        return Segment(self._rate_bps, (block + 1) * self._coherence_ns)

    def _rate_at(self, snr: float) -> int:
        """In whole bit/s, rounded down."""
        rate_bps = int(self._config.efficiency * shannon_bps(self._config.bandwidth, snr))
        return rate_bps if self._config.max_rate is None else min(rate_bps, self._config.max_rate)


def _one_of(config: FadingConfig, first: str, second: str, problem: str) -> None:
    if (getattr(config, first) is None) == (getattr(config, second) is None):
        both = getattr(config, first) is not None
        raise _at(first, f"{problem} once" if both else problem, allowed=f"{first}, or {second}")


def _at(path: str, problem: str, **told: Any) -> Any:
    return as_pydantic(ScenarioError(problem, path=path, **told))
