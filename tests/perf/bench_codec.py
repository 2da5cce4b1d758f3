"""How fast messages are made and read on one core, beside a copy and a bare per-row quantiser of the same run.

512 x 4096 float32, normal with two channels a hundred times as large; every repetition takes other values, because the
branch predictor learns a repeated message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from testbed.codecs.agreed import agree
from testbed.codecs.named import make_codec

TOKENS, HIDDEN = 512, 4096
MEGABYTES = TOKENS * HIDDEN * 4 / 1e6
PREFILLS, STEPS = 9, 400
CASES = (
    ("ts_tabq", "", "ts-tabq(delta=0.1)"),
    ("ts_tabq_rans", "_rans", "ts-tabq(delta=0.1,entropy=rans)"),
    ("ts_tabq_rans_agreed", "_rans_agreed", "ts-tabq(delta=0.1,entropy=rans,tables=agreed)"),
    ("ts_tabq_rans_channel", "_rans_channel", "ts-tabq(delta=0.1,entropy=rans,tables=channel)"),
)

F32Array = np.ndarray[Any, np.dtype[np.float32]]


def measure() -> list[dict[str, object]]:
    """Rows {name, value, unit, yardstick_name, yardstick_value}; speeds are the best, times the median."""
    prefills = [_states(TOKENS, seed) for seed in range(PREFILLS)]
    copy = MEGABYTES / min(_seconds(np.copy, prefills))
    bare = MEGABYTES / min(_seconds(_bare, prefills))
    rows = [_row("codec.bare_quantiser_MBps", bare, "MB/s", "memcpy MB/s", copy)]
    for name, suffix, setting in CASES:
        codec = make_codec(setting, agree(setting, _states(TOKENS, PREFILLS)))
        messages = [codec.encode(states) for states in prefills]
        encode, decode = min(_seconds(codec.encode, prefills)), min(_seconds(codec.decode, messages))
        steps = [_states(1, seed) for seed in range(STEPS)]
        round_trip = float(np.median(_seconds(lambda states, codec=codec: codec.decode(codec.encode(states)), steps)))
        one_row = float(np.median(_seconds(_bare, steps)))
        rows += [
            _row(f"codec.{name}.encode_MBps", MEGABYTES / encode, "MB/s", "bare per-row quantiser MB/s", bare),
            _row(f"codec.{name}.decode_MBps", MEGABYTES / decode, "MB/s", "memcpy MB/s", copy),
            _row(
                f"codec.message_roundtrip{suffix}_us",
                round_trip * 1e6,
                "us",
                "bare quantiser, a row, us",
                one_row * 1e6,
            ),
        ]
    return rows


def _row(name: str, value: float, unit: str, yardstick: str, yardstick_value: float) -> dict[str, object]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "yardstick_name": yardstick,
        "yardstick_value": yardstick_value,
    }


def _states(num_tokens: int, seed: int) -> F32Array:
    states = np.random.default_rng(seed).standard_normal((num_tokens, HIDDEN)).astype(np.float32)
    states[:, [5, 77]] *= 100
    return states


def _seconds(work: Callable[[Any], object], inputs: Sequence[Any]) -> list[float]:
    """How long each input took, after a first one that isn't counted."""
    work(inputs[0])
    taken = []
    for value in inputs:
        start_s = time.perf_counter()
        work(value)
        taken.append(time.perf_counter() - start_s)
    return taken


def _bare(states: F32Array) -> object:
    codes = np.empty(states.shape, np.int8)
    _quantise(states, codes)
    return codes


@numba.njit(error_model="numpy")
def _quantise(states, codes):  # type: ignore[no-untyped-def]
    """The least that a per-row quantiser does: peak, scale, round."""
    for row in range(states.shape[0]):
        peak = np.float32(0)
        for value in states[row]:
            peak = max(peak, abs(value))
        inverse = np.float32(127) / peak
        for at in range(states.shape[1]):
            codes[row, at] = np.int8(np.int32(states[row, at] * inverse))
