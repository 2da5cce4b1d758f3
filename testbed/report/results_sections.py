"""The report's results: key figures, outcomes, latencies, where time went, traffic, servers, quality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from testbed.core.events import HOPS, Outcome
from testbed.report import plots, series, words
from testbed.report.markup import Markup, element, figure, section, table
from testbed.report.style import DASHES, HOP_COLOURS, NUM_SERIES
from testbed.results.folder import Run

_NUM_TEXTS = 5
_NUM_SERVERS = 10  # at either end of a long list
_NUM_REASONS = 12
_MAX_TEXT = 1200
_VIRTUAL = "Virtual time."


def tiles(run: Run) -> Markup:
    summary = run.summary
    good, batch = summary["goodput"], summary["servers"]["batch_size"]
    counts = summary["completed"], words.num_requests(summary)
    troubled = sum(summary[outcome] for outcome in words.TROUBLES)
    lost = ", ".join(f"{words.number(summary[outcome])} {noun}" for outcome, noun in words.troubles(summary).items())
    used = [joules for kinds in summary["energy_j"].values() for joules in kinds.values() if joules is not None]
    told = [
        _tile("Completed", " of ".join(map(words.number, counts)), lost, warn=troubled > 0),
        *(
            _tile(f"{name} p50", words.spread(summary[key], "p50")[0], _tail(summary[key]))
            for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("E2E", "e2e_s"))
        ),
        _tile("Tokens/s", words.number(summary["tokens_per_s"]), "delivered, in virtual time"),
        _tile("Payload up", words.size(summary["bytes_up"]), f"{words.size(summary['wire_bytes_up'])} on the wire"),
        _tile("Retransmissions", words.number(summary["retransmissions"]), "packets sent again"),
        _tile("Energy", words.energy(sum(used) if used else None), "devices and servers, modelled"),
    ]
    if good is not None:
        within = f"TTFT ≤ {words.seconds(good['slo_ttft_s'])}, TPOT ≤ {words.seconds(good['slo_tpot_s'])}"
        told.insert(4, _tile("Goodput", words.share(good["share"]), within))
    if summary["servers"]["count"]:
        mean = words.number(None if batch is None else batch["mean"])
        told.append(_tile("Servers busy", words.share(summary["servers"]["utilisation"]), f"mean batch {mean}"))
    return element("div", *told, class_="tiles")


def _tile(name: str, value: str, more: str, *, warn: bool = False) -> Markup:
    parts = [element("div", told, class_=style) for told, style in ((name, "name"), (value, "value"), (more, "more"))]
    return element("div", *parts, class_="tile warn" if warn else "tile")


def _tail(values: Mapping[str, float] | None) -> str:
    p95, p99 = words.spread(values, "p95", "p99")
    return f"p95\u00a0{p95} · p99\u00a0{p99}"


def outcomes(run: Run) -> Markup:
    groups = _groups(run)
    troubles = words.troubles(run.summary)
    ends = ["group", "device", "compute", "devices", "completed", *troubles.values()]
    costs = ["group", "TTFT p50", "p95", "TPOT p50", "p95", "E2E p50", "p95", "up/token", "down/token", "energy"]
    tables = [
        table("Outcomes by group", ends, [_outcome_row(*item, troubles) for item in groups.items()], num_text=3),
        table("Latency, payload and energy by group", costs, [_cost_row(*item) for item in groups.items()]),
    ]
    if run.summary["by_kind"] is not None:
        named = ["kind", "requests", "completed", "TTFT p50", "p95", "TPOT p50", "p95", "E2E p50", "p95"]
        tables.append(table("By kind of request", named, [_kind_row(*item) for item in run.summary["by_kind"].items()]))
    memory = [_memory_row(name, item) for name, group in groups.items() for item in group.get("memory", [])]
    if memory:
        named = [
            "group",
            "split",
            "tokens",
            "device (M_edge)",
            "weights of both sides (M_w)",
            "state at the cut (B_kv)",
        ]
        tables.append(table("Memory that the longest request takes", named, memory))
    reasons = _reasons(run.tables.requests.select(["outcome", "reason"]))
    if reasons:
        tables.append(table("Why requests did not complete", ["outcome", "reason", "requests"], reasons, num_text=2))
    note = "OOM is an outcome of its own and never counts as a late answer. Latencies are of completed requests only."
    return section("Groups and outcomes", *tables, note=note)


def _outcome_row(name: str, group: Mapping[str, Any], troubles: Iterable[str]) -> list[object]:
    troubled = [_count(group[outcome]) for outcome in troubles]
    compute = "real" if group["real"] else "modelled"
    return [name, group["device_kind"], compute, *map(words.number, (group["devices"], group["completed"])), *troubled]


def _cost_row(name: str, group: Mapping[str, Any]) -> list[object]:
    latencies = [told for key in ("ttft_s", "tpot_s", "e2e_s") for told in words.spread(group[key], "p50", "p95")]
    per_token = [words.size(group[f"bytes_per_token_{direction}"]) for direction in ("up", "down")]
    return [name, *latencies, *per_token, words.energy(group["energy_j"])]


def _kind_row(name: str, kind: Mapping[str, Any]) -> list[object]:
    latencies = [text for key in ("ttft_s", "tpot_s", "e2e_s") for text in words.spread(kind[key], "p50", "p95")]
    return [name, kind["requests"], kind["completed"], *latencies]


def _memory_row(name: str, memory: Mapping[str, Any]) -> list[object]:
    sizes = [words.size(memory[key]) for key in ("edge_bytes", "footprint_bytes", "state_bytes")]
    return [name, words.number(memory["split"]), words.number(memory["tokens"]), *sizes]


def _count(count: int) -> Markup | str:
    return element("strong", words.number(count), class_="warn") if count else "0"


def _reasons(requests: pa.Table) -> list[Sequence[object]]:
    lost = requests.filter(pc.not_equal(requests["outcome"], str(Outcome.COMPLETED)))
    pairs = zip(lost["outcome"].to_pylist(), lost["reason"].to_pylist(), strict=True)
    ranked = sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0]))
    return [(outcome, reason or words.DASH, words.number(count)) for (outcome, reason), count in ranked[:_NUM_REASONS]]


def latencies(run: Run) -> Markup:
    good = run.summary["goodput"] or {}
    requests = run.tables.requests.select(["outcome", "group", "ttft_s", "tpot_s"])
    completed = requests.filter(pc.equal(requests["outcome"], str(Outcome.COMPLETED)))
    counts = {item["values"]: item["counts"] for item in completed["group"].value_counts().to_pylist()}
    lines = _lines(counts, list(_groups(run)))
    drawn = [
        _cdf(completed, lines, column, title, good.get(limit))
        for column, title, limit in (
            ("ttft_s", "time to first token (TTFT)", "slo_ttft_s"),
            ("tpot_s", "time per output token (TPOT)", "slo_tpot_s"),
        )
    ]
    note = f"{_VIRTUAL} Share of the completed requests at or below each value."
    legend = [_legend(list(lines))] if lines else []
    return section("Latency", element("div", *drawn, class_="pair"), *legend, note=note)


def _cdf(
    completed: pa.Table, lines: Mapping[str, Sequence[str]], column: str, title: str, limit_s: float | None
) -> Markup:
    defined = completed.filter(pc.is_valid(completed[column]))
    if defined.num_rows == 0:
        return figure(title, element("p", "No completed request has this latency.", class_="note"))
    own = [defined.filter(pc.is_in(defined["group"], pa.array(names)))[column].to_numpy() for names in lines.values()]
    return figure(title, plots.latency_cdf(column, own, title, limit_s))


def _lines(counts: Mapping[str, int], order: Sequence[str]) -> dict[str, list[str]]:
    """A line a group, in the fleet's order; the smaller ones share one where there are more than can be told apart."""
    named = [name for name in order if counts.get(name)]
    if len(named) <= NUM_SERIES:
        return {name: [name] for name in named}
    largest = {name for name, _ in Counter(counts).most_common(NUM_SERIES - 1)}
    rest = [name for name in named if name not in largest]
    return {**{name: [name] for name in named if name in largest}, f"{len(rest)} other groups": rest}


def _legend(names: Sequence[str]) -> Markup:
    return element("ul", *(element("li", _stroke(index), name) for index, name in enumerate(names)), class_="legend")


def _stroke(index: int) -> Markup:
    dashes = " ".join(str(2 * int(part)) for part in DASHES[index].split())
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    line = f'<line x1="0" y1="5" x2="30" y2="5" stroke="var(--s{index})" stroke-width="2.5"{dash}/>'
    return Markup(f'<svg viewBox="0 0 30 10" aria-hidden="true">{line}</svg>')


def hops(run: Run) -> Markup:
    title = "Where the time goes"
    whole, groups = run.summary["breakdown_s"], _groups(run)
    if whole is None:
        return section(title, element("p", "No request completed.", class_="note"))
    shown = {name: group["breakdown_s"] for name, group in groups.items() if group["breakdown_s"] is not None}
    means = {name: {hop: entry["mean_s"] for hop, entry in hops.items()} for name, hops in shown.items()}
    drawn = element("div", plots.time_by_hop(means), class_="wide")
    used = [hop for hop in HOPS if whole[hop]["mean_s"] > 0]
    rows = [
        [_named_hop(hop), words.share(whole[hop]["share"]), words.seconds(whole[hop]["mean_s"])]
        + [words.seconds(mean[hop]) for mean in means.values()]
        for hop in used
    ]
    figures = table("Mean time of a completed request by hop", ["hop", "share of all", "all groups", *means], rows)
    note = f"{_VIRTUAL} The hops of a request follow each other without gap and add up to its end-to-end time exactly."
    return section(title, drawn, figures, note=note)


def _named_hop(hop: str) -> Markup:
    swatch = element("span", class_="swatch", style=f"background:{HOP_COLOURS[hop]}", aria_hidden="true")
    return element("span", swatch, words.HOP_WORDS[hop], class_="hop")


def servers(run: Run) -> Markup:
    title, found = "Server load", run.summary["servers"]
    if found["count"] == 0:
        return section(title, element("p", "No server took part.", class_="note"))
    figures = _server_table(found["each"])
    if found["iterations"] == 0 or run.summary["duration_s"] == 0:
        return section(title, figures, note="No iteration ended.")
    busiest = sorted(found["each"], key=lambda entry: (-entry["iterations"], entry["server"]))[:NUM_SERIES]
    ids = sorted(entry["server"] for entry in busiest)
    iterations = series.iterations_of(run.tables.servers, ids)
    loads = [series.load(iterations, server, run.summary["duration_s"]) for server in ids]
    drawn = element("div", plots.load_over_time(loads, run.summary["duration_s"]), class_="wide")
    names = [f"{entry['group']} {entry['server']}" for entry in found["each"] if entry["server"] in ids]
    note = f"{_VIRTUAL} Batch and queue are means over the time in which the server computed."
    if len(ids) < found["count"]:
        note += f" Drawn: the {len(ids)} servers with most iterations."
    return section(title, drawn, *([_legend(names)] if len(names) > 1 else []), figures, note=note)


def _server_table(each: Sequence[Mapping[str, Any]]) -> Markup:
    """A row a server; of more than can be read, those that computed most and least."""
    ranked = sorted(each, key=lambda entry: (-(entry["utilisation"] or 0.0), entry["server"]))
    title, shown = "Every server", each
    if len(each) > 2 * _NUM_SERVERS:
        shown = [*ranked[:_NUM_SERVERS], *ranked[-_NUM_SERVERS:]]
        rest = words.number(len(each) - len(shown))
        title = f"The {_NUM_SERVERS} busiest and the {_NUM_SERVERS} least busy servers; {rest} are between them"
    rows = [
        [
            f"{entry['group']} {entry['server']}",
            entry["kind"],
            words.number(entry["iterations"]),
            words.share(entry["utilisation"]),
            *_batch(entry["batch_size"]),
        ]
        for entry in shown
    ]
    return table(title, ["server", "kind", "iterations", "busy", "batch mean", "p95", "max"], rows, num_text=2)


def _batch(batch: Mapping[str, float] | None) -> list[str]:
    return [words.number(None if batch is None else batch[name]) for name in ("mean", "p95", "max")]


def quality(run: Run) -> Markup:
    title, whole = "Quality of real groups", run.summary["quality"]
    texts = _texts(run.tables.requests.select(["request", "group", "split", "codec", "text"]))
    if whole is None and not texts:
        told = "No real request was compared with the unsplit model."
        return section(title, element("p", told, class_="note"))
    parts: list[Markup] = []
    if whole is not None:
        compared = {name: group["quality"] for name, group in _groups(run).items() if group["quality"] is not None}
        rows = [_quality_row(name, found) for name, found in compared.items()]
        if len(compared) > 1:
            rows.append(_quality_row("all groups", whole))
        header = ["group", "requests", "tokens", "tokens that agree", "largest logit difference"]
        parts.append(table("Against the unsplit model, fed the same tokens", header, rows))
    if texts:
        parts.append(element("h3", "First answers (prompt and generated text)"))
    return section(title, *parts, *texts)


def _quality_row(name: str, found: Mapping[str, Any]) -> list[object]:
    counts = [words.number(found["requests"]), words.number(found["tokens"])]
    return [name, *counts, words.share(found["token_agreement"]), f"{found['max_logit_difference']:.3g}"]


def _texts(requests: pa.Table) -> list[Markup]:
    chosen = requests.filter(pc.is_valid(requests["text"]))
    return [_quoted(row) for row in chosen.slice(0, _NUM_TEXTS).to_pylist()]


def _quoted(row: Mapping[str, Any]) -> Markup:
    text = row["text"] if len(row["text"]) <= _MAX_TEXT else row["text"][:_MAX_TEXT] + " …"
    origin = f"request {row['request']}, {row['group']}, split {row['split']}, {row['codec']}"
    return element("blockquote", text, element("footer", origin))


def _groups(run: Run) -> dict[str, Any]:
    """In the order of the fleet."""
    order = run.tables.devices["group"].unique().to_pylist()
    return {name: run.summary["by_group"][name] for name in order}
