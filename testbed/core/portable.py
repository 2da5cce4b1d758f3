"""Logarithm, power and draws that are the same to the last bit on every machine.

Only additions, multiplications, divisions and square roots are used, which IEEE 754 rounds in one way; a C library's
`log` and `pow` differ in the last bit between systems, and a rate or a sojourn that is rounded from them may, too.
Errors are below 1e-15, relative for `exp2` and relative to max(1, result) for the logarithms.
"""

from __future__ import annotations

import math

from testbed.core.rng import Stream

LN2 = 0.6931471805599453
_LN10 = 2.302585092994046
_LOG2_10 = 3.321928094887362
HALF_SQRT2 = 0.7071067811865476
ODD_INVERSES = tuple(1 / (2 * k + 1) for k in reversed(range(12)))
INVERSE_FACTORIALS = tuple(1 / math.factorial(k) for k in reversed(range(16)))
_TWO_53 = 2.0**-53
_TWO_31 = 2.0**-31
_MASK32 = (1 << 32) - 1
_TRY_SHIFT = 48  # a draw's number lies below, the number of the try above


def ln(value: float) -> float:
    """Natural logarithm of a positive number: ``2 artanh((m - 1) / (m + 1))`` of its mantissa m, and the exponent."""
    mantissa, exponent = math.frexp(value)
    if mantissa < HALF_SQRT2:
        mantissa, exponent = 2 * mantissa, exponent - 1
    ratio = (mantissa - 1) / (mantissa + 1)
    square, series = ratio * ratio, 0.0
    for coefficient in ODD_INVERSES:
        series = series * square + coefficient
    return exponent * LN2 + 2 * ratio * series


def log2(value: float) -> float:
    return ln(value) / LN2


def exp2(power: float) -> float:
    """Two to this power, by the exponential series of the fraction."""
    whole = round(power)
    fraction, series = (power - whole) * LN2, 0.0
    for coefficient in INVERSE_FACTORIALS:
        series = series * fraction + coefficient
    return math.ldexp(series, whole)


def exp(power: float) -> float:
    """E to this power; the relative error grows with its magnitude, below 1e-14 up to 40."""
    return exp2(power / LN2)


def from_decibels(decibels: float) -> float:
    """The ratio of powers."""
    return exp2(decibels / 10 * _LOG2_10)


def decibels_of(ratio: float) -> float:
    """Of a ratio of powers: ten times its decimal logarithm."""
    return 10 * ln(ratio) / _LN10


def exponential(stream: Stream, entity: int, counter: int) -> float:
    """A draw with mean 1, untruncated: at most 53 ln 2."""
    return -ln(((stream.u64(entity, counter) >> 11) + 1) * _TWO_53)


def normal_pair(stream: Stream, entity: int, counter: int) -> tuple[float, float]:
    """Two independent standard normal draws, by Marsaglia's polar method; `counter` is below 2**48."""
    attempt = 0
    while True:
        bits = stream.u64(entity, attempt << _TRY_SHIFT | counter)
        x, y = (((bits >> 32) + 0.5) * _TWO_31 - 1, ((bits & _MASK32) + 0.5) * _TWO_31 - 1)
        square = x * x + y * y
        if square < 1:
            factor = math.sqrt(-2 * ln(square) / square)
            return x * factor, y * factor
        attempt += 1
