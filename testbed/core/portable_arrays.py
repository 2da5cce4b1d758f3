"""The portable functions for arrays, and quantiles made of them: bit for bit the same on every machine.

Each does elementwise what `testbed.core.portable` does for one number, in the same order of operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from testbed.core.portable import HALF_SQRT2, INVERSE_FACTORIALS, LN2, ODD_INVERSES
from testbed.core.rng import F64Array

# Wichura (1988), algorithm AS 241, PPND16: numerators and denominators, highest power first. Relative error 1e-16.
_MIDDLE = 0.425
_FAR_TAIL = 5.0
_MIDDLE_TOP = (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
               13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608)  # fmt: skip
_MIDDLE_BOTTOM = (5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
                  5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0)  # fmt: skip
_TAIL_TOP = (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
             3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734)  # fmt: skip
_TAIL_BOTTOM = (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
                0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0)  # fmt: skip
_FAR_TOP = (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
            0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772)  # fmt: skip
_FAR_BOTTOM = (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
               0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0)  # fmt: skip


def _horner(variable: F64Array, coefficients: Sequence[float]) -> F64Array:
    series = np.zeros_like(variable)
    for coefficient in coefficients:
        series *= variable
        series += coefficient
    return series


def ln_each(values: F64Array) -> F64Array:
    """As `portable.ln`, of positive numbers."""
    mantissa, exponent = np.frexp(values)
    is_low = mantissa < HALF_SQRT2
    mantissa, exponent = np.where(is_low, 2 * mantissa, mantissa), exponent - is_low
    ratio = (mantissa - 1) / (mantissa + 1)
    logarithms: F64Array = exponent * LN2 + 2 * ratio * _horner(ratio * ratio, ODD_INVERSES)
    return logarithms


def exp_each(powers: F64Array) -> F64Array:
    """Exponentials: as `portable.exp2` of the powers over ln 2."""
    binary = powers / LN2
    whole = np.rint(binary)
    return np.ldexp(_horner((binary - whole) * LN2, INVERSE_FACTORIALS), whole.astype(np.int64))


def exponential_quantile(u: F64Array) -> F64Array:
    """Of the law with mean 1, for u in [0, 1) in steps of 2**-53, whose distance to 1 is exact."""
    return -ln_each(1 - u)


def normal_quantile(u: F64Array) -> F64Array:
    """Of the standard normal law, for u in (0, 1)."""
    offset = u - 0.5
    in_middle = np.abs(offset) <= _MIDDLE
    found = np.empty_like(u)
    found[in_middle] = _middle_quantile(offset[in_middle])
    tail = _tail_quantile(np.minimum(u, 1 - u)[~in_middle])
    found[~in_middle] = np.where(offset[~in_middle] < 0, -tail, tail)
    return found


def _middle_quantile(offset: F64Array) -> F64Array:
    square = 0.180625 - offset * offset
    return _horner(square, _MIDDLE_TOP) * offset / _horner(square, _MIDDLE_BOTTOM)


def _tail_quantile(p: F64Array) -> F64Array:
    """How far out the tail with probability p begins."""
    root = np.sqrt(-ln_each(p))
    near, far = root - 1.6, root - _FAR_TAIL
    return np.where(
        root <= _FAR_TAIL,
        _horner(near, _TAIL_TOP) / _horner(near, _TAIL_BOTTOM),
        _horner(far, _FAR_TOP) / _horner(far, _FAR_BOTTOM),
    )
