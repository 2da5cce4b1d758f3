"""The scenarios of fleets, shortened, show what they say they teach; both engines say the same of the largest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from testbed.core.units import NS_PER_S
from testbed.report.html import write_report
from testbed.results.folder import read_run
from testbed.run import prepare, run
from testbed.scenarios.load import load_scenario

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
# A day in fast motion, an hour of it in three minutes: the same rates, a twentieth of the requests.
HOUR_NS = 180 * NS_PER_S
FAST = [f"workload.arrivals.{key}={hours * 180} s" for key, hours in (("day", 24), ("peak", 20), ("until", 24))]
THOUSAND = ["fleet.phones.count=600", "fleet.laptops.count=300", "fleet.boards.count=100", "servers.cloud.count=2"]


def ran(name: str, folder: Path, *overrides: str):
    return run(prepare(load_scenario(SCENARIOS / f"{name}.yaml", overrides=overrides)), folder).summary


def test_on_a_campus_a_codec_buys_back_what_shared_air_takes(tmp_path: Path) -> None:
    """Both halls have the same devices and ask as often; servers have room."""
    less = ("requests_per_device=1", "until=22.5 s")
    summary = ran(
        "campus", tmp_path / "run", *(f"workload.arrivals.{key}" for key in less), "workload.output_tokens.mean=8"
    )
    groups = summary["by_group"]
    for statistic in ("p50", "p95"):
        for kind, factor in (("laptops", 2), ("phones", 1.3)):
            plain, coded = (groups[f"{hall}-{kind}"]["ttft_s"][statistic] for hall in ("plain", "coded"))
            assert plain > factor * coded
    busy = {entry["cell"]: entry["utilisation"] for entry in summary["cells"]}
    assert busy["plain-hall"] > 3 * busy["coded-hall"]
    assert summary["servers"]["utilisation"] < 0.6


def in_time(folder: Path, first_hour: int, last_hour: int) -> float:
    """The share of the requests of these hours whose first token came within the limit of 3 s."""
    requests = read_run(folder).tables.requests
    hour = pc.divide(requests["arrival_ns"], HOUR_NS)
    waits_s = requests.filter(pc.and_(pc.greater_equal(hour, first_hour), pc.less(hour, last_hour)))["ttft_s"]
    return float(np.mean(waits_s.to_numpy() <= 3.0))


def test_a_city_is_served_at_noon_and_not_in_the_evening_unless_it_has_a_second_server(tmp_path: Path) -> None:
    one = ran("city", tmp_path / "one", *FAST)
    two = ran("city", tmp_path / "two", *FAST, "servers.cloud.count=2")
    assert one["engine"]["name"] == two["engine"]["name"] == "cohorts"
    assert in_time(tmp_path / "one", 8, 14) > 0.9
    assert in_time(tmp_path / "one", 19, 24) < 0.5
    assert in_time(tmp_path / "two", 19, 24) > 0.9
    # What tells is the batch, which is full, and not the share of time in which a server computes.
    assert min(one["servers"]["utilisation"], two["servers"]["utilisation"]) > 0.9
    assert one["servers"]["batch_size"]["p95"] == 12 > two["servers"]["batch_size"]["p95"]


def test_both_engines_give_a_thousand_of_the_nation_the_same_results(tmp_path: Path) -> None:
    """At a rate at which two servers have batches, with every column of every table in the digest."""
    less = [*THOUSAND, "workload.arrivals.until=8 min"]
    found = {
        name: ran("nation", tmp_path / name, *less, f"execution.engine={name}") for name in ("requests", "cohorts")
    }
    plain, compiled = found["requests"], found["cohorts"]
    assert plain["result_digest"] == compiled["result_digest"]
    assert plain["servers"] == compiled["servers"]
    assert plain["completed"] == 1000
    breakdown = compiled["breakdown_s"]
    assert sum(entry["share"] for hop, entry in breakdown.items() if hop.startswith("server")) < 0.5


def test_a_report_lists_the_busiest_and_the_idlest_of_many_servers(tmp_path: Path) -> None:
    less = [*THOUSAND, "servers.cloud.count=40", "workload.output_tokens.value=4", "execution.engine=requests"]
    summary = ran("nation", tmp_path / "run", *less)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    table = page[page.index("10 busiest and the 10 least busy servers; 20 are between them") :]
    table = table[: table.index("</table>")]
    ranked = sorted(summary["servers"]["each"], key=lambda entry: (-entry["utilisation"], entry["server"]))
    listed = [f"cloud {entry['server']}<" in table for entry in ranked]
    assert listed == [True] * 10 + [False] * 20 + [True] * 10
