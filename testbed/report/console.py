"""The summary as a table in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from testbed.report import words

_TOP_HOPS = 6
_BAR_WIDTH = 20
_DIGEST_DIGITS = 12
_LATENCIES = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("E2E", "e2e_s"))
_STATISTICS = ("mean", "p50", "p95", "p99")

Line = tuple[str, str | Text]


def summary_table(summary: Mapping[str, Any]) -> RenderableType:
    """What `testbed run` prints at its end: outcomes, latencies, then everything else, a line each."""
    parts: list[RenderableType] = [_facts([*_outcome_lines(summary)]), _latencies(summary)]
    parts.append(_facts([*_traffic_lines(summary), *_edge_lines(summary), *_compute_lines(summary)]))
    if summary["by_kind"] is not None:
        parts.append(_kinds(summary["by_kind"]))
    if summary["breakdown_s"] is not None:
        parts.append(_breakdown(summary["breakdown_s"]))
    parts.append(_facts([*_provenance_lines(summary)]))
    return Group(*parts)


def _facts(lines: list[Line]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True, width=12)
    table.add_column(overflow="fold")
    for name, told in lines:
        table.add_row(name, Text(told) if isinstance(told, str) else told)
    return table


def _outcome_lines(summary: Mapping[str, Any]) -> Iterator[Line]:
    if not summary["complete"]:
        yield "incomplete", Text(summary["reason"] or "the run stopped first", style="bold red")
    counts = Text(f"{words.number(summary['completed'])} of {words.number(words.num_requests(summary))} completed")
    for outcome, noun in words.TROUBLES.items():
        if summary[outcome]:
            counts.append(f", {words.number(summary[outcome])} {noun}", style="red")
    yield "requests", counts
    yield "time", f"{words.seconds(summary['duration_s'])} virtual, {words.seconds(summary['wall_s'])} wall clock"


def _latencies(summary: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("latency", style="bold", width=12)
    for statistic in _STATISTICS:
        table.add_column(statistic, justify="right", min_width=9)
    for name, key in _LATENCIES:
        table.add_row(name, *words.spread(summary[key], *_STATISTICS))
    return table


def _kinds(by_kind: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line a kind of request: how many completed, and the 95th percentiles of their latencies."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("kind", style="bold", width=12)
    table.add_column("completed", justify="right", min_width=9)
    for name, _ in _LATENCIES:
        table.add_column(f"{name} p95", justify="right", min_width=9)
    for kind, entry in by_kind.items():
        latencies = [words.spread(entry[key], "p95")[0] for _, key in _LATENCIES]
        table.add_row(
            Text(kind), f"{words.number(entry['completed'])} of {words.number(entry['requests'])}", *latencies
        )
    return table


def _traffic_lines(summary: Mapping[str, Any]) -> Iterator[Line]:
    good = summary["goodput"]
    if good is not None:
        limits = f"TTFT ≤ {words.seconds(good['slo_ttft_s'])}, TPOT ≤ {words.seconds(good['slo_tpot_s'])}"
        rate = words.number(good["requests_per_s"])
        yield "goodput", f"{rate} requests/s ({words.share(good['share'])}) with {limits}"
    yield "output", f"{words.number(summary['tokens_per_s'])} tokens/s"
    for direction in ("up", "down"):
        payload, wire = summary[f"bytes_{direction}"], summary[f"wire_bytes_{direction}"]
        yield f"traffic {direction}", f"{words.size(payload)} payload, {words.size(wire)} on the wire"
    if summary["encryption"] is not None:
        yield "encryption", words.encryption(summary["encryption"])
    if summary["codec_changes"]:
        yield "codecs", f"changed {words.number(summary['codec_changes'])} times by the policy"
    yield "resent", words.plural(summary["retransmissions"], "packet")
    yield from _kv_lines(summary)


def _kv_lines(summary: Mapping[str, Any]) -> Iterator[Line]:
    """What servers short of memory did, and what sessions found."""
    if summary["preemptions"]:
        cost = f"{words.number(summary['recomputed_tokens'])} tokens run again"
        if summary["swapped_bytes"]:
            cost = f"{words.size(summary['swapped_bytes'])} swapped"
        yield "preempted", f"{words.plural(summary['preemptions'], 'time')} by servers out of KV memory, {cost}"
    if summary["requeues"]:
        yield "requeued", f"{words.plural(summary['requeues'], 'time')} a request began anew after a server failure"
    if summary["prefix_tokens"]:
        yield "prefixes", f"{words.number(summary['prefix_tokens'])} tokens of earlier turns found on their server"


def _edge_lines(summary: Mapping[str, Any]) -> Iterator[Line]:
    edges = summary["edges"]
    if edges is not None:
        busiest = max(edges["each"], key=lambda row: row["utilisation"] or 0.0)
        told = f"busiest {words.share(busiest['utilisation'])}, {busiest['source']} to {busiest['target']}"
        counts = (f"{words.number(edges[f'{what}_packets'])} {what}" for what in ("dropped", "lost", "failed"))
        yield "edges", f"{told}; packets {', '.join(counts)}"


def _compute_lines(summary: Mapping[str, Any]) -> Iterator[Line]:
    servers = summary["servers"]
    if servers["count"] == 0:
        yield "servers", "none: every request stayed on its device"
    else:
        busy, batch = words.share(servers["utilisation"]), servers["batch_size"]
        told = f"{words.number(servers['count'])}, busy {busy} of the time"
        if batch is not None:
            told += f"; batch {words.number(batch['mean'])} mean, {words.number(batch['p95'])} p95, {batch['max']} max"
        yield "servers", told
    if summary["operation"] is not None:
        yield "operation", words.operation(summary["operation"])
    if summary["cost"]["total_usd"] is not None:
        yield "cost", words.cost(summary["cost"])
    used = {kind: value for by_kind in summary["energy_j"].values() for kind, value in by_kind.items()}
    yield from _device_lines(summary["device_state"])
    yield "energy", ", ".join(f"{kind} {words.energy(value)}" for kind, value in used.items())


def _device_lines(state: Mapping[str, Any] | None) -> Iterator[Line]:
    """What became of devices by themselves."""
    if state is not None:
        yield "devices", words.presence(state)
        if state["battery"] is not None:
            yield "battery", words.battery(state["battery"])
        if state["heat"] is not None:
            yield "heat", words.heat(state["heat"])


def _breakdown(breakdown: Mapping[str, Mapping[str, float | None]]) -> Table:
    """The hops that take most of a request's time."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("where the time goes", style="bold", width=22)
    table.add_column("mean", justify="right", min_width=9)
    table.add_column("share", justify="right", min_width=7)
    table.add_column("", width=_BAR_WIDTH)
    ranked = sorted(breakdown.items(), key=lambda item: -(item[1]["share"] or 0))
    for hop, entry in ranked[:_TOP_HOPS]:
        if entry["share"]:
            bar = "█" * max(1, round(_BAR_WIDTH * entry["share"]))
            name = words.HOP_WORDS.get(hop, hop)
            table.add_row(Text(name), words.seconds(entry["mean_s"]), words.share(entry["share"]), Text(bar, "cyan"))
    rest = sum(entry["share"] or 0 for _, entry in ranked[_TOP_HOPS:])
    if rest:
        table.add_row("the rest", "", words.share(rest), "")
    return table


def _provenance_lines(summary: Mapping[str, Any]) -> Iterator[Line]:
    quality = summary["quality"]
    if quality is not None:
        told = f"{words.share(quality['token_agreement'])} of {words.plural(quality['tokens'], 'token')} agree"
        yield (
            "quality",
            f"{told} with the unsplit model; logits differ by at most {quality['max_logit_difference']:.3g}",
        )
    yield "real", words.groups_of(summary, real=True) or "none: no shard of a model ran"
    yield "modelled", words.groups_of(summary, real=False) or "no group"
    if told := words.fitted_laws(summary):
        yield "fitted", f"sizes of modelled messages, drawn from laws of real ones: {told}"
    if told := words.profile_tables(summary):
        yield "tables", f"compute times of {told}"
    if summary["calibration"] is not None:
        yield "calibrated", f"on {words.calibration(summary['calibration'])}"
    if summary["assumed_sizes"]:
        yield "assumed", f"sizes of modelled messages by {words.assumed_codecs(summary)}: from settings, not content"
    told = "deterministic" if summary["deterministic"] else "not deterministic: compute times were measured"
    if told_engine := words.engine(summary["engine"]):
        yield "engine", told_engine
    digests = [("results", summary["result_digest"]), ("events", summary["event_digest"])]
    shown = ", ".join(f"{name} {digest[:_DIGEST_DIGITS]}" for name, digest in digests if digest is not None)
    yield "digest", f"{shown}; {told}"
