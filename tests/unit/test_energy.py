"""Energy against sums by hand."""

from __future__ import annotations

import pytest

from testbed.actors.energy import device_energy, processor_energy_j
from testbed.scenarios.profiles import DeviceProfile

S = 1_000_000_000
DEVICE = DeviceProfile.model_validate(
    {
        "name": "test",
        "memory": "1 GB",
        "reserved_memory": "1 MB",
        "memory_bandwidth": "10 GB/s",
        "compute": "1 TFLOP/s",
        "kernel_overhead": "1 us",
        "idle_power": "3 W",
        "active_power": "12 W",
        "transmit_power": "1.5 W",
        "receive_power": "500 mW",
    }
)


def test_processor_draws_idle_power_always_and_the_rest_while_busy() -> None:
    assert processor_energy_j(DEVICE, duration_ns=100 * S, busy_ns=0) == pytest.approx(300)
    assert processor_energy_j(DEVICE, duration_ns=100 * S, busy_ns=100 * S) == pytest.approx(1200)
    assert processor_energy_j(DEVICE, duration_ns=100 * S, busy_ns=10 * S) == pytest.approx(90 * 3 + 10 * 12)


def test_a_devices_energy_by_state() -> None:
    energy = device_energy(DEVICE, duration_ns=100 * S, busy_ns=10 * S, transmit_ns=4 * S, receive_ns=2 * S)
    assert (energy.idle_j, energy.compute_j) == (pytest.approx(90 * 3), pytest.approx(10 * 12))
    assert (energy.transmit_j, energy.receive_j) == (pytest.approx(4 * 1.5), pytest.approx(2 * 0.5))
    assert energy.total_j == pytest.approx(390 + 7)


def test_busy_beyond_the_run_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        processor_energy_j(DEVICE, duration_ns=S, busy_ns=2 * S)
