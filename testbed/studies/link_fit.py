"""Rates of the catalogue's links, fitted to measured traces: ``python -m testbed.studies.link_fit --data DATA``.

A trace becomes a sequence of mean rates, one a slot. Its quantiles are the states of a Markov chain; how long the chain
stays in a state, and where it goes from there, is counted. The catalogue holds the chain of all traces; what the method
is worth is measured by a chain of one half against the other: mean, quantiles and correlation.
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from testbed.core.errors import ModelError

FloatArray = npt.NDArray[np.float64]

SLOT_S = 0.5  # of the chain
_SLOTS_PER_SECOND = 2  # fits are judged by the mean rates of whole seconds
NUM_STATES = 6
_BLOCK_SLOTS = 40  # a single trace is fitted on every other 20 s, and checked on those between
_OPPORTUNITY_MBIT = 1500 * 8 / 1e6
_QUANTILES = np.linspace(0.05, 0.95, 19)
_SIMULATED_SLOTS = 400_000
_SEED = 1

_MAHIMAHI, _BANDWIDTH = "net-mahimahi/traces", "net-bandwidth-collection"
# (link, key) -> trace files below the data folder
SOURCES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("lte-driving", "rate_up"): f"{_MAHIMAHI}/ATT-LTE-driving-2016.up",
        ("lte-driving", "rate_down"): f"{_MAHIMAHI}/ATT-LTE-driving-2016.down",
        ("lte-urban", "rate_up"): f"{_MAHIMAHI}/TMobile-LTE-short.up",
        ("lte-urban", "rate_down"): f"{_MAHIMAHI}/TMobile-LTE-short.down",
        ("3g-hsdpa", "rate_up"): f"{_MAHIMAHI}/TMobile-UMTS-driving.up",
        ("3g-hsdpa", "rate_down"): f"{_BANDWIDTH}/cooked_3gp/*",
        ("dsl", "rate_down"): f"{_BANDWIDTH}/fcc_ori/test_traces/*",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A rate that stays in a state for a while: rates in Mbit/s, mean times in s, where it goes then."""

    rates: FloatArray
    sojourns: FloatArray
    moves: FloatArray  # rows sum to 1, nothing on the diagonal


@dataclass(frozen=True, slots=True, kw_only=True)
class FitError:
    """Of a chain against traces, relative to their mean; the correlation's as a difference."""

    mean: float
    quantiles: float  # mean absolute difference of the 5th to the 95th percentile
    correlation: float  # of a slot with the next


def slot_rates(file: Path) -> FloatArray:
    """Mean rate of each whole slot, Mbit/s: of a Mahimahi file, or of lines of (seconds, Mbit/s)."""
    try:
        values = np.loadtxt(file, ndmin=2)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not a trace: {error}") from None
    if values.shape[1] == 1:
        slots = (values[:, 0] / (1000 * SLOT_S)).astype(int)
        counts = np.bincount(slots, minlength=1)[:-1].astype(np.float64)  # the last slot is not whole
        return counts * (_OPPORTUNITY_MBIT / SLOT_S)
    times, rates = values[:, 0], values[:, 1]
    edges = np.arange(times[0], times[-1], SLOT_S)
    bits = np.concatenate([[0.0], np.cumsum(np.diff(times) * rates[1:])])  # a line holds for the time before it
    means: FloatArray = np.diff(np.interp(edges, times, bits)) / SLOT_S
    return means


def fit_chain(series: Sequence[FloatArray], num_states: int) -> Chain:
    """States of equal probability, fewer where a rate is so common that it fills several."""
    everything = np.concatenate(series)
    edges = np.unique(np.quantile(everything, np.linspace(0, 1, num_states + 1)[1:-1]))
    states = [np.searchsorted(edges, one, side="right") for one in series]
    used, flat = np.unique(np.concatenate(states), return_inverse=True)
    num_states = used.size
    states = np.split(flat, np.cumsum([one.size for one in series])[:-1])
    rates = np.bincount(flat, weights=everything) / np.bincount(flat)
    steps = np.zeros((num_states, num_states))
    for one in states:
        after = np.roll(one, -1)  # a trace is taken as a circle: as many steps lead into a state as out of it
        np.add.at(steps, (one, after), 1)
    leaving = steps.sum(axis=1) - np.diag(steps)
    sojourns = SLOT_S * steps.sum(axis=1) / np.maximum(leaving, 1)
    moves = steps - np.diag(np.diag(steps)) + 1e-9 * (1 - np.eye(num_states))
    return Chain(rates=rates, sojourns=sojourns, moves=moves / moves.sum(axis=1, keepdims=True))


def simulate_slots(chain: Chain, num_slots: int, seed: int) -> FloatArray:
    """Mean rates of consecutive slots of the chain in continuous time, Mbit/s."""
    generator = np.random.default_rng(seed)
    bounds = np.cumsum(chain.moves, axis=1)
    bounds[:, -1] = 1.0
    end_s = num_slots * SLOT_S
    num_drawn = int(2 * end_s / chain.sojourns.min()) + 1  # more than enough: a sojourn has at least the least mean
    uniforms, times_s = generator.random(num_drawn).tolist(), generator.exponential(size=num_drawn).tolist()
    rows, means_s = bounds.tolist(), chain.sojourns.tolist()
    edges_s, states, state = [0.0], [], 0
    for uniform, time_s in zip(uniforms, times_s, strict=True):
        edges_s.append(edges_s[-1] + means_s[state] * time_s)
        states.append(state)
        if edges_s[-1] >= end_s:
            break
        state = bisect_right(rows[state], uniform)
    bits = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * chain.rates[states])])
    slots: FloatArray = np.diff(np.interp(np.arange(num_slots + 1) * SLOT_S, edges_s, bits)) / SLOT_S
    return slots


def fit_error(chain: Chain, series: Sequence[FloatArray]) -> FitError:
    """Of the chain against these traces, both as mean rates of whole seconds."""
    ours = _seconds(simulate_slots(chain, _SIMULATED_SLOTS, _SEED))
    seconds = [_seconds(one) for one in series]
    theirs = np.concatenate(seconds)
    apart = np.abs(np.quantile(ours, _QUANTILES) - np.quantile(theirs, _QUANTILES)).mean()
    return FitError(
        mean=float(ours.mean() / theirs.mean() - 1),
        quantiles=float(apart / theirs.mean()),
        correlation=_correlation([ours]) - _correlation(seconds),
    )


def _seconds(slots: FloatArray) -> FloatArray:
    whole = slots[: slots.size // _SLOTS_PER_SECOND * _SLOTS_PER_SECOND]
    means: FloatArray = whole.reshape(-1, _SLOTS_PER_SECOND).mean(axis=1)
    return means


def _correlation(series: Sequence[FloatArray]) -> float:
    mean = np.concatenate(series).mean()
    products = np.concatenate([(one[1:] - mean) * (one[:-1] - mean) for one in series])
    return float(products.mean() / np.concatenate([(one - mean) ** 2 for one in series]).mean())


def read_traces(data: Path, pattern: str) -> list[FloatArray]:
    """Every trace of a pattern, as slots. Raises ModelError where there is none."""
    files = sorted(data.glob(pattern))
    if not files:
        raise ModelError(f"{data}: no trace called {pattern}")
    return [slot_rates(file) for file in files]


def halves(series: Sequence[FloatArray]) -> tuple[list[FloatArray], list[FloatArray]]:
    """Every other trace, or of a single one every other block: one half to fit, the other to check."""
    parts = list(series)
    if len(parts) == 1:
        parts = [parts[0][at : at + _BLOCK_SLOTS] for at in range(0, parts[0].size, _BLOCK_SLOTS)]
        parts = [part for part in parts if part.size == _BLOCK_SLOTS]
    return parts[0::2], parts[1::2]


def rate_piece(chain: Chain) -> dict[str, Any]:
    """The chain as a link's file writes it, to three digits."""
    states = [
        {"rate": f"{float(f'{1000 * rate:.3g}'):g} kbit/s", "mean": f"{sojourn:.3g} s"}
        for rate, sojourn in zip(chain.rates, chain.sojourns, strict=True)
    ]
    return {"kind": "markov", "states": states, "transitions": [_thousandths(row) for row in chain.moves]}


def _thousandths(row_S: FloatArray) -> list[float]:
    """Rounded so that they still sum to 1: the largest takes up the rest."""
    whole = np.round(1000 * row_S).astype(int)
    whole[row_S.argmax()] += 1000 - whole.sum()
    return [float(count) / 1000 for count in whole]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the rates of the catalogue's links to traces.")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the trace collections")
    data = parser.parse_args().data
    for (link, key), pattern in SOURCES.items():
        series = read_traces(data, pattern)
        fitted, checked = halves(series)
        error = fit_error(fit_chain(fitted, NUM_STATES), checked)
        head = f"# {link}.{key} from {pattern}: a chain of one half against the other: {told(error)}\n"
        piece = rate_piece(fit_chain(series, NUM_STATES))
        text = yaml.safe_dump({key: piece}, sort_keys=False, default_flow_style=None, width=120)
        sys.stdout.write(f"{head}{text}\n")


def told(error: FitError) -> str:
    """In words, as the catalogue states it."""
    return (
        f"mean {error.mean:+.1%}, quantiles {error.quantiles:.1%} of the mean, "
        f"correlation of neighbouring seconds {error.correlation:+.2f}"
    )


if __name__ == "__main__":
    main()
