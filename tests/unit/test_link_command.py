"""`testbed link`: one link alone, from the command line."""

from __future__ import annotations

import json

import pytest

from testbed.scenarios.catalogue import entries
from tests.unit.tiny_scenario import call

FAST = "name: wire\nrate_up: 8 Mbit/s\nrate_down: 80 Mbit/s\npropagation_delay: 10 ms\n"


def trial(*arguments):
    called = call("link", *arguments, "--json")
    assert (called.code, called.err) == (0, "")
    return json.loads(called.out)


def test_a_plain_wire_takes_what_arithmetic_says(tmp_path):
    (tmp_path / "wire.yaml").write_text(FAST)
    found = trial(tmp_path / "wire.yaml", "--messages", "5", "--bytes", "3000")
    # 3,000 bytes are 3,120 on the wire in three packets: 3.12 ms at 8 Mbit/s, and 10 ms on the way.
    assert found["delay_s"] == pytest.approx(dict.fromkeys(("mean", "p50", "p95", "p99", "max"), 0.01312))
    assert found["duration_s"] == pytest.approx(5 * 0.01312)
    assert found["goodput_bps"] == pytest.approx(3000 * 8 / 0.01312)
    assert (found["delivered"], found["lost"], found["timeout"]) == (5, 0, 0)
    down = trial(tmp_path / "wire.yaml", "--messages", "5", "--bytes", "3000", "--direction", "down")
    assert down["delay_s"]["mean"] == pytest.approx(0.010312)


def test_messages_at_equal_distances_wait_for_each_other(tmp_path):
    (tmp_path / "wire.yaml").write_text(FAST)
    found = trial(tmp_path / "wire.yaml", "--messages", "4", "--bytes", "960 B", "--every", "0.5 ms")
    # 1 ms each, every half: they wait 0, 0.5, 1 and 1.5 ms.
    assert found["mean_part_s"]["queue"] == pytest.approx(0.75e-3)
    assert found["delay_s"]["max"] == pytest.approx(12.5e-3)


def test_parts_add_up_and_a_seed_decides():
    found = trial("lte", "--messages", "200", "-o", "loss=5 %")
    assert sum(found["mean_part_s"].values()) == pytest.approx(found["delay_s"]["mean"])
    assert found["packet_loss"] == pytest.approx(0.05, abs=0.02)
    assert trial("lte", "--messages", "200", "-o", "loss=5 %") == found
    assert trial("lte", "--messages", "200", "-o", "loss=5 %", "--seed", "2") != found


def test_a_drawing_is_written_and_the_table_says_where(tmp_path):
    called = call("link", "wifi", "--messages", "50", "--plot", "--out", tmp_path / "new" / "wifi.svg")
    assert called.code == 0
    assert "50 delivered" in called.out
    assert f"drawing: {tmp_path / 'new' / 'wifi.svg'}" in called.out
    assert (tmp_path / "new" / "wifi.svg").read_text().count("<svg") == 1
    assert max(map(len, called.out.splitlines()[:-1])) <= 80


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("wifo",), "did you mean 'wifi'?"),
        (("./wify.yaml",), "no such link file; did you mean 'wifi'?"),
        (("wifi", "--bytes", "3 x"), "--bytes: unknown unit 'x' for a size"),
        (("wifi", "--every", "0 s"), "--every: too small (got '0 s'); allowed: at least 1 ns"),
        (("wifi", "-o", "loss=2"), "loss: ratio too large (got 2)"),
        (("wifi", "-o", "transport=tcpp"), "transport.kind: unknown transport (got 'tcpp')"),
    ],
)
def test_a_mistake_is_one_line(arguments, told):
    called = call("link", *arguments)
    assert called.code == 2
    assert told in called.err
    assert len(called.err.splitlines()) == 1


@pytest.mark.parametrize("name", entries("link"))
def test_every_link_of_the_catalogue_carries_messages(name):
    found = trial(name, "--messages", "20", "--bytes", "200 B")
    assert found["delivered"] >= 18
    assert name == "colocated" or 0 < found["delay_s"]["p50"] < 2


def test_the_catalogue_has_the_links_that_planners_ask_for():
    wired = {"ethernet-1g", "fibre-home", "dsl", "datacentre"}
    wireless = {"wifi5-quiet", "wifi5-crowded", "wifi6-quiet", "wifi6-crowded", "lora"}
    mobile = {"lte-urban", "lte-driving", "lte-edge-of-cell", "3g-hsdpa", "5g-sub6", "5g-mmwave", "nr-sa"}
    assert wired | wireless | mobile | {"leo-satellite", "geo-satellite"} <= set(entries("link"))
