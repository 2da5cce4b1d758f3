"""Fleets of several classes, and devices that differ within one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.core.errors import ScenarioError
from testbed.scenarios.load import build_scenario
from testbed.scenarios.mix import webster
from testbed.scenarios.schema import Scenario
from testbed.sim.fleet import Fleet
from tests.sim_runs import group, scenario, server, workload

MIX = [{"device": "raspberry-pi-5", "share": "50 %"}, {"device": "pixel-8", "share": 0.3, "link": "lte"},
       {"device": {"use": "pixel-8", "memory": "12 GB"}, "name": "large", "share": 0.2}]  # fmt: skip


def built(*fleet: dict[str, Any], **changes: Any) -> Scenario:
    data = {"name": "m", "model": "llama-3.2-1b", "seed": 5, "policy": "cloud-only", "fleet": list(fleet),
            "servers": [{"server": "l4"}], "workload": workload(), **changes}  # fmt: skip
    return build_scenario(data, base=Path())


def mixed(count: int = 10, **changes: Any) -> dict[str, Any]:
    return {"name": "all", "count": count, "link": "wifi", "mix": MIX, **changes}


def test_a_mix_becomes_a_group_a_class() -> None:
    before, *classes = built({"name": "one", "device": "laptop", "count": 2, "link": "wifi"}, mixed()).fleet
    assert before.name == "one"
    told = [(item.name, item.device.name, item.count, item.link.name) for item in classes]
    assert told == [
        ("all.raspberry-pi-5", "raspberry-pi-5", 5, "wifi"),
        ("all.pixel-8", "pixel-8", 3, "lte"),
        ("all.large", "pixel-8", 2, "wifi"),
    ]
    assert [item.device.memory for item in classes] == [8e9, 8e9, 12e9]


@given(
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    count=st.integers(1, 300),
)
def test_exact_counts_are_websters_and_grow_by_one(weights: list[int], count: int) -> None:
    shares = [Fraction(weight, sum(weights)) for weight in weights]
    counts = webster(shares, count)
    assert sum(counts) == count
    # Webster's: some divisor rounds every share to its count.
    least = max(((got - Fraction(1, 2)) / share for got, share in zip(counts, shares, strict=True)))
    most = min(((got + Fraction(1, 2)) / share for got, share in zip(counts, shares, strict=True)))
    assert least <= most
    grown = [after - before for before, after in zip(counts, webster(shares, count + 1), strict=True)]
    assert sorted(grown) == [0] * (len(shares) - 1) + [1]


def test_random_classes_have_their_shares_and_one_more_device_changes_no_other() -> None:
    counts = {item.name: item.count for item in built(mixed(2000, mix_draw="random")).fleet}
    for name, share in (("all.raspberry-pi-5", 0.5), ("all.pixel-8", 0.3), ("all.large", 0.2)):
        assert abs(counts[name] - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5
    more = {item.name: item.count for item in built(mixed(2001, mix_draw="random")).fleet}
    assert sum(more[name] - counts[name] for name in counts) == 1
    assert min(more[name] - counts[name] for name in counts) == 0
    other_seed = built(mixed(2000, mix_draw="random"), seed=6).fleet
    assert counts != {item.name: item.count for item in other_seed}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mix": [{**MIX[0]}, {**MIX[1]}]}, "fleet[0].mix: the shares don't add up to 1 (got '0.8')"),
        ({"mix": [{"device": "pixel-8"}]}, "fleet[0].mix[0].share: required key is missing"),
        ({"mix": [{"share": 1}]}, "fleet[0].mix[0].device: required key is missing"),
        ({"mix": [{"device": "pixel-8", "share": "1 x"}]}, "fleet[0].mix[0].share: unknown unit 'x'"),
        ({"mix": [*MIX[:2], {"device": "pixl-8", "share": 0.2}]}, "fleet[0].mix[2].device: unknown device"),
        ({"mix": [*MIX[:2], {**MIX[2], "link": {"use": "lte", "mtu": "0 B"}}]}, "fleet[0].mix[2].link.mtu: size too"),
        ({"mix": [*MIX[:2], {**MIX[2], "polcy": "edge-only"}]}, "fleet[0].mix[2].polcy: unknown key"),
        ({"device": "laptop"}, "fleet[0].device: a group has a device or a mix of them"),
        ({"mix_draw": "exct"}, "fleet[0].mix_draw: not one of the choices (got 'exct')"),
        ({"count": 0}, "fleet[0].count: not a number of devices (got 0)"),
        ({"link": "wify"}, "fleet[0].link: unknown link"),
    ],
)
def test_what_is_wrong_with_a_mix_is_told_where_it_is_written(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        built(mixed(**changes))
    assert said in str(raised.value)


def test_the_path_of_a_later_group_is_its_own() -> None:
    with pytest.raises(ScenarioError) as raised:
        built(mixed(), {"name": "b", "device": "laptop", "count": 1, "link": "wify"})
    assert str(raised.value).startswith("fleet[1].link")


def test_devices_differ_by_their_draws_within_their_spread() -> None:
    vary = {
        "memory_bandwidth": "10 %", "active_power": "50 %",
        "memory": [{"value": "8 GB", "share": "70 %"}, {"value": "12 GB", "share": "30 %"}],
    }  # fmt: skip
    made = scenario(fleet=[group(count=400, vary=vary)], servers=[{"server": server()}])
    fleet = Fleet(made)
    profiles = [fleet.profile(made.fleet[0], place) for place in range(400)]
    bandwidths = [profile.memory_bandwidth / 50e6 for profile in profiles]
    assert all(0.9 <= value <= 1.1 for value in bandwidths)
    # Uniform: the mean of 400 within four standard errors, the range nearly filled.
    assert abs(sum(bandwidths) / 400 - 1) < 4 * (0.2 / 12**0.5) / 20
    assert max(bandwidths) - min(bandwidths) > 0.19
    large = sum(profile.memory == 12_000_000_000 for profile in profiles)
    assert abs(large - 120) < 4 * (400 * 0.3 * 0.7) ** 0.5
    assert all(profile.active_power >= profile.idle_power for profile in profiles)
    assert all(profile.compute == 1e9 for profile in profiles)
    again = scenario(fleet=[group("other", count=3), group(count=3, vary=vary)], servers=[{"server": server()}])
    assert [Fleet(again).profile(again.fleet[1], place) for place in range(3)] == profiles[:3]
