"""Energy of a processor over a run, from its power levels and the time spent at each [our design].

    E = P_idle T + (P_active - P_idle) T_busy + P_tx T_tx + P_rx T_rx

T is the whole run, T_busy the time the processor computes. A device's radio adds to that while a message is clocked
out or in, whether or not the processor computes meanwhile. Processors that share every layer are busy together. Of a
device with battery, heat, churn or other programs sim/vitals.py keeps the account, change by change.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

from testbed.core.units import ns_to_seconds
from testbed.scenarios.profiles import DeviceProfile, ProcessorProfile


def processor_energy_j(profile: ProcessorProfile, *, duration_ns: int, busy_ns: int) -> float:
    """Joules of computing and idling; `busy_ns` is part of `duration_ns`."""
    assert 0 <= busy_ns <= duration_ns, "a processor can't be busy for longer than the run"
    extra_w = profile.active_power - profile.idle_power
    one_j = profile.idle_power * ns_to_seconds(duration_ns) + extra_w * ns_to_seconds(busy_ns)
    return profile.num_processors * one_j


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEnergy:
    """Joules of a device by what it did; off it takes none."""

    idle_j: float
    compute_j: float
    transmit_j: float
    receive_j: float
    background_j: float = 0.0  # other programs, while no stage runs
    sleep_j: float = 0.0

    @property
    def total_j(self) -> float:
        return math.fsum(astuple(self))


def device_energy(
    profile: DeviceProfile, *, duration_ns: int, busy_ns: int, transmit_ns: int, receive_ns: int
) -> DeviceEnergy:
    """Of a device that is always there: processor, and radio on top."""
    assert min(duration_ns - busy_ns, busy_ns, transmit_ns, receive_ns) >= 0, "time can't be negative"
    return DeviceEnergy(
        idle_j=profile.idle_power * ns_to_seconds(duration_ns - busy_ns),
        compute_j=profile.active_power * ns_to_seconds(busy_ns),
        transmit_j=profile.transmit_power * ns_to_seconds(transmit_ns),
        receive_j=profile.receive_power * ns_to_seconds(receive_ns),
    )
