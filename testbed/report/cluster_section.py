"""The report's account of the servers together: how many ran beside the load, how they failed, what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from testbed.core.units import NS_PER_S
from testbed.report import plots, series, words
from testbed.report.markup import Markup, element, figure, join, section, table
from testbed.results.folder import Run

_MAX_ORDERS = 30
_MAX_SERVERS = 50


def cluster(run: Run) -> Markup:
    """Nothing where servers have no price, are not scaled and can't fail."""
    found, cost = run.summary.get("operation"), run.summary.get("cost")
    is_priced = cost is not None and cost["total_usd"] is not None
    if found is None and not is_priced:
        return join([])
    parts: list[Markup] = []
    if found is not None:
        parts.extend(_operation(run, found))
    if cost is not None and is_priced:
        parts.append(element("p", words.cost(cost)))
        rows = [[group, words.dollars(value)] for group, value in cost["by_group_usd"].items()]
        parts.append(table("Cost by group", ["group", "cost"], rows))
    note = "Servers cost, and draw power, from their start to their end, cold starts included; not while they are down."
    return section("Number and cost of servers", *parts, note=note)


def _operation(run: Run, found: Mapping[str, Any]) -> Iterator[Markup]:
    states, orders = run.tables.server_states, run.tables.scale_events
    assert states is not None, "the summary has its figures"
    assert orders is not None, "the summary has its figures"
    yield element("p", words.operation(found))
    duration_s = run.summary["duration_s"]
    if duration_s:
        load = series.under_way(run.tables.requests, duration_s)
        counts = series.servers(states, duration_s)
        title = "Load and servers over time"
        yield figure(title, element("div", plots.servers_over_time(load, counts, duration_s), class_="wide"))
    rows = [
        [words.seconds(row["time_ns"] / NS_PER_S), row["group"], row["from"], row["to"], row["why"]]
        for row in orders.slice(0, _MAX_ORDERS).to_pylist()
    ]
    if rows:
        more = f", the first {_MAX_ORDERS} of {orders.num_rows}" if orders.num_rows > _MAX_ORDERS else ""
        yield table(f"Orders of autoscalers{more}", ["time", "group", "from", "to", "why"], rows, num_text=2)
    yield _times(run)


def _times(run: Run) -> Markup:
    named = ("starting_ns", "up_ns", "draining_ns", "down_ns")
    all_rows = run.tables.server_totals.to_pylist()
    rows = [
        [
            f"{row['group']} {row['server']}",
            *(words.seconds(None if row[name] is None else row[name] / NS_PER_S) for name in named),
            words.DASH if row["failures"] is None else words.number(row["failures"]),
            words.dollars(row["cost_usd"]),
        ]
        for row in all_rows[:_MAX_SERVERS]
    ]
    more = f", the first {_MAX_SERVERS} of {len(all_rows)}" if len(all_rows) > _MAX_SERVERS else ""
    header = ["server", "starting", "up", "draining", "down", "failures", "cost"]
    return table(f"Every server's time{more}", header, rows)
