"""What a run with changing servers leaves: states, orders, times, money."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from testbed.report.html import write_report
from testbed.results import files
from testbed.run import Prepared, run
from tests.sim_runs import MS, TINY_SOURCE, S, group, link, scenario, server, table_of, workload
from tests.unit.fake_runs import fake_run, write_run

SLOW = server(kernel_overhead="20 ms", price_per_hour=7.2)  # 0.002 dollars a second
NEAR = link(propagation_delay="0 s")
AUTOSCALE = {"signal": "queue", "target": 2, "interval": "100 ms", "cold_start": "250 ms", "max": 3}


def run_folder(folder, built):
    """The folder's summary and tables by name."""
    result = run(Prepared(scenario=built, source=TINY_SOURCE, requests=table_of(built)), folder)
    return result.summary, {path.stem: pq.read_table(str(path)) for path in folder.glob("*.parquet")}


def changing(**changes):
    """Six requests on a scaled group one of whose servers crashes."""
    return scenario(
        policy="cloud-only",
        fleet=[group(link=NEAR, count=6)],
        workload=workload(arrivals={"kind": "times", "times": ["1 s"]}, output_tokens={"law": "fixed", "value": 30}),
        servers=[
            {"server": SLOW, "autoscale": AUTOSCALE, "on_failure": "requeue",
             "down": [{"server": 0, "at": "1500 ms", "until": "2 s"}]},
        ],
        **changes,
    )  # fmt: skip


def test_states_and_orders_are_tables_and_their_times_add_up(tmp_path):
    summary, tables = run_folder(tmp_path / "run", changing())
    states = tables["server_states"].to_pylist()
    assert states[0] == {"time_ns": 0, "server": 0, "group": "cloud", "state": "up"}
    assert {"time_ns": 1500 * MS, "server": 0, "group": "cloud", "state": "down"} in states
    orders = tables["scale_events"].to_pylist()
    assert orders[0] == {"time_ns": S, "group": "cloud", "from": 1, "to": 3, "why": "queue high"}
    end_ns = round(summary["duration_s"] * S)
    spent = {}  # the table of totals must agree with the table of changes
    for server_id in range(3):
        own = [row for row in states if row["server"] == server_id]
        for row, following in zip(own, [*own[1:], {"time_ns": end_ns}], strict=True):
            key = (server_id, row["state"])
            spent[key] = spent.get(key, 0) + following["time_ns"] - row["time_ns"]
    for row in tables["server_totals"].to_pylist():
        for state in ("starting", "up", "draining", "down"):
            assert row[f"{state}_ns"] == spent.get((row["server"], state), 0), (row["server"], state)
        costing_s = (row["starting_ns"] + row["up_ns"] + row["draining_ns"]) / S
        assert row["cost_usd"] == pytest.approx(0.002 * costing_s)
        assert row["energy_j"] == pytest.approx(60 * costing_s + 240 * row["busy_ns"] / S)
    assert tables["server_totals"]["failures"].to_pylist() == [1, 0, 0]


def test_the_summary_prices_tokens_and_requests_and_counts_servers(tmp_path):
    summary, tables = run_folder(tmp_path / "run", changing())
    cost = summary["cost"]
    assert cost["total_usd"] == pytest.approx(sum(tables["server_totals"]["cost_usd"].to_pylist()))
    assert cost["per_1000_output_tokens_usd"] == pytest.approx(cost["total_usd"] / (6 * 30) * 1000)
    assert cost["per_request_usd"] == pytest.approx(cost["total_usd"] / 6)
    assert summary["requeues"] == sum(tables["requests"]["requeues"].to_pylist()) == 6
    operation = summary["operation"]
    assert operation["failures"] == 1
    assert operation["by_group"]["cloud"]["max"] == 3
    up_ns = sum(tables["server_totals"]["up_ns"].to_pylist())
    assert operation["by_group"]["cloud"]["mean"] == pytest.approx(up_ns / S / summary["duration_s"])
    assert 0.9 < operation["availability"] < 1
    busy_ns, serving_ns = (
        sum(tables["server_totals"][name].to_pylist()[server] for server in range(3) for name in names)
        for names in (["busy_ns"], ["up_ns", "draining_ns"])
    )
    assert summary["servers"]["utilisation"] == pytest.approx(busy_ns / serving_ns)


def test_a_server_without_a_price_leaves_the_sum_open(tmp_path):
    servers = [{"server": SLOW}, {"name": "own", "server": server()}]
    summary, _ = run_folder(tmp_path / "run", scenario(servers=servers))
    assert summary["cost"]["total_usd"] is None
    assert summary["cost"]["by_group_usd"]["cloud"] > 0
    assert summary["cost"]["by_group_usd"]["own"] is None


def test_the_report_shows_servers_beside_load(tmp_path):
    run_folder(tmp_path / "run", changing())
    page = write_report(tmp_path / "run").read_text()
    for told in ("Number and cost of servers", "Load and servers over time", "Orders of autoscalers", "queue high"):
        assert told in page


def test_where_nothing_changes_there_is_no_table_and_no_section(tmp_path):
    summary = write_run(tmp_path / "run", fake_run())
    assert summary["operation"] is None
    assert not (tmp_path / "run" / files.SERVER_STATES).exists()
    assert "Number and cost of servers" not in write_report(tmp_path / "run").read_text()


def test_a_new_run_takes_the_place_of_one_with_more_tables(tmp_path):
    run_folder(tmp_path / "run", changing())
    plain = scenario()
    run(Prepared(scenario=plain, source=TINY_SOURCE, requests=table_of(plain)), tmp_path / "run", force=True)
    assert not (tmp_path / "run" / files.SERVER_STATES).exists()
    assert json.loads((tmp_path / "run" / files.SUMMARY).read_text())["operation"] is None
