"""Energy of a processor over a run, from two power levels and the time spent at each [our design].

    E = P_idle T + (P_active - P_idle) T_busy + P_tx T_tx + P_rx T_rx

T is the whole run, T_busy the time the processor computes. A device's radio adds to that while a message is clocked
out or in, whether or not the processor computes meanwhile. Processors that share every layer are busy together.
Frequency scaling and heat are not modelled.
"""

from __future__ import annotations

from testbed.core.units import ns_to_seconds
from testbed.scenarios.profiles import DeviceProfile, ProcessorProfile


def processor_energy_j(profile: ProcessorProfile, *, duration_ns: int, busy_ns: int) -> float:
    """Joules of computing and idling; `busy_ns` is part of `duration_ns`."""
    assert 0 <= busy_ns <= duration_ns, "a processor can't be busy for longer than the run"
    extra_w = profile.active_power - profile.idle_power
    one_j = profile.idle_power * ns_to_seconds(duration_ns) + extra_w * ns_to_seconds(busy_ns)
    return profile.num_processors * one_j


def radio_energy_j(profile: DeviceProfile, *, transmit_ns: int, receive_ns: int) -> float:
    """Joules a device's network interface takes on top, by the time messages are on the air in each direction."""
    assert transmit_ns >= 0, "time can't be negative"
    assert receive_ns >= 0, "time can't be negative"
    sending_j = profile.transmit_power * ns_to_seconds(transmit_ns)
    return sending_j + profile.receive_power * ns_to_seconds(receive_ns)


def device_energy_j(
    profile: DeviceProfile, *, duration_ns: int, busy_ns: int, transmit_ns: int, receive_ns: int
) -> float:
    """Joules of an edge device: processor and radio."""
    computing_j = processor_energy_j(profile, duration_ns=duration_ns, busy_ns=busy_ns)
    return computing_j + radio_energy_j(profile, transmit_ns=transmit_ns, receive_ns=receive_ns)
