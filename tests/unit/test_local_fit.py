"""Profile tables fitted to whole passes: what was put in comes out again."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.core.work import Work
from testbed.studies.local.fit import Axes, Pass, fit_entries, fit_line, place_on

AXES = Axes(tokens=(1, 4, 16, 64), prefill_tokens=(8, 32), steps=(1, 2, 8), contexts=(10, 100), rows=(1, 2, 8))
OVERHEAD = 900_000
LAYER = {1: 200_000, 4: 230_000, 16: 300_000, 64: 700_000}
PREFILL = {8: 20_000, 32: 90_000}
HEAD = {1: 0, 2: 50_000, 8: 400_000}


def _on(line: dict[int, int], place: float) -> float:
    return float(np.interp(place, list(line), list(line.values())))


def _truth_ns(works: list[Work]) -> int:
    """The law written out once more, by numpy's own interpolation."""
    steps = [work.past_tokens for work in works if work.new_tokens == 1]
    layer = _on(LAYER, sum(work.new_tokens for work in works))
    layer += sum(_on(PREFILL, work.new_tokens) for work in works if work.new_tokens > 1)
    layer += 300 * max(0, len(steps) - 1) * (np.mean(steps) - 10) if steps else 0
    return round(OVERHEAD + (works[0].stop - works[0].start) * layer + _on(HEAD, len(works)))


def _works(split: int, *sequences: tuple[int, int]) -> list[Work]:
    return [Work(start=split, stop=12, new_tokens=new, past_tokens=past) for new, past in sequences]


def _batches() -> list[list[Work]]:
    batches = []
    for split in (2, 9):
        batches += [_works(split, *[(1, context)] * number) for number in (1, 2, 4, 8) for context in (10, 55, 100)]
        batches += [_works(split, *[(new, 0)] * number) for new in (8, 20, 32) for number in (1, 2)]
        batches += [_works(split, (new, 0), *[(1, 55)] * number) for new in (8, 32) for number in (1, 2)]
    return batches


def _passes(noise: float = 0.0) -> list[Pass]:
    random = np.random.default_rng(7)
    return [
        Pass(part="all", works=tuple(works), time_ns=round(_truth_ns(works) * (1 + noise * random.standard_normal())))
        for works in _batches()
    ]


def test_entries_are_recovered_from_exact_times() -> None:
    found = fit_entries(_passes(), AXES)
    assert found.overhead_ns == pytest.approx(OVERHEAD, rel=1e-3)
    assert found.layer_ns == pytest.approx(list(LAYER.values()), rel=2e-3)
    assert found.prefill_ns == pytest.approx(list(PREFILL.values()), abs=500)
    assert found.head_ns == pytest.approx(list(HEAD.values()), abs=2000)
    assert found.decode_ns[0] == pytest.approx([0, 0], abs=200)
    assert found.decode_ns[2][1] == pytest.approx(300 * 7 * 90, rel=1e-2)


def test_noise_of_five_percent_costs_no_more_than_that() -> None:
    found = fit_entries(_passes(noise=0.05), AXES)
    assert found.layer_ns[0] == pytest.approx(LAYER[1], rel=0.05)
    assert found.layer_ns == sorted(found.layer_ns)
    assert found.head_ns == sorted(found.head_ns)


def test_a_place_has_all_of_the_first_entry_and_a_share_of_the_next() -> None:
    assert place_on((1, 4, 16), 1).tolist() == [1, 0, 0]
    assert place_on((1, 4, 16), 10).tolist() == [1, 1, 0.5]
    assert place_on((1, 4, 16), 16).tolist() == [1, 1, 1]
    assert place_on((8, 16), 2).tolist() == [1, 0]


def test_a_line_gives_its_start_and_slope_and_neither_below_nothing() -> None:
    assert fit_line([100, 1000, 5000], [1100, 2000, 6000]) == pytest.approx((1000, 1))
    assert min(fit_line([100, 200, 300], [300, 200, 100])) >= 0
