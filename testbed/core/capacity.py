"""What a fading channel carries: Shannon's capacity of one state, and the rate that all but a few states carry.

Quasi-static Rayleigh fading has a power gain |h|^2 ~ Exp(1). With bandwidth B and mean signal-to-noise ratio rho, the
eps-outage rate is the one that the channel can't carry with probability eps (Tse and Viswanath, Fundamentals of
Wireless Communication, section 5.4.1):

    R_eps = B log2(1 + rho ln(1 / (1 - eps)))

A planner that reckons with R_eps meets a transmission time of payload / R_eps in all but a fraction eps of the states.
"""

from __future__ import annotations

import math

from testbed.core.portable import ln, log2
from testbed.core.units import BITS_PER_BYTE, NS_PER_S


def shannon_bps(bandwidth_hz: float, snr: float) -> float:
    """Bits a second that get through at this ratio of powers."""
    return bandwidth_hz * log2(1 + snr)


def outage_rate_bps(bandwidth_hz: float, mean_snr: float, eps: float) -> float:
    """R_eps of Rayleigh fading, 0 < eps < 1."""
    return shannon_bps(bandwidth_hz, -mean_snr * ln(1 - eps))


def worst_transmit_ns(size_bytes: int, bandwidth_hz: float, mean_snr: float, eps: float) -> int:
    """How long a message takes, rounded up, at the slowest of the states that are no outage."""
    return math.ceil(size_bytes * BITS_PER_BYTE * NS_PER_S / outage_rate_bps(bandwidth_hz, mean_snr, eps))
