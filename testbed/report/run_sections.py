"""The report's frame: what was run, what in it was real, and under which versions and seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from testbed.report import words
from testbed.report.markup import Markup, element, facts, join, section
from testbed.results.folder import Run


def scenario_name(run: Run) -> str:
    return str(_scenario(run).get("name") or run.folder.name)


def header(run: Run) -> Markup:
    summary, scenario = run.summary, _scenario(run)
    lead = f"Testbed run · {words.plural(words.num_requests(summary), 'request')} · "
    lead += f"{words.seconds(summary['duration_s'])} of virtual time, computed in {words.seconds(summary['wall_s'])}"
    parts = [element("h1", scenario_name(run)), element("p", lead, class_="lead")]
    if scenario.get("description"):
        parts.append(element("p", scenario["description"]))
    if not summary["complete"]:
        parts.append(_banner(summary))
    return element("header", *parts)


def _banner(summary: Mapping[str, Any]) -> Markup:
    reason = summary["reason"] or "it was stopped first"
    told = f" The run did not reach its end: {reason}. What follows covers the time until then; "
    told += f"{words.plural(summary['incomplete'], 'request')} had no outcome yet."
    return element("div", element("strong", "Incomplete."), told, class_="banner", role="alert")


def provenance(run: Run) -> Markup:
    """Which figures are what: the first thing to know about a result."""
    pairs: list[tuple[str, object]] = [
        ("Real", _told(run, "shards of the model ran; tokens, texts and payload bytes are theirs", real=True)),
        ("Modelled", _told(run, "times and bytes from cost and payload laws; no shard ran", real=False)),
        *_fitted(run.summary),
        *_tables(run.summary),
        *_assumed(run.summary),
        *_calibrated(run.summary),
        ("Links", "modelled for every group: rate, delay, jitter, loss and queue in virtual time"),
        ("Times", _times(run.summary)),
        *_engine(run.summary),
        ("Energy", "modelled from the profiles' powers and the busy times"),
        ("Wall clock", f"{words.seconds(run.summary['wall_s'])}, measured where this ran: the only such time here"),
    ]
    return section("What was real and what was modelled", facts(pairs))


def _engine(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    told = words.engine(summary["engine"])
    return [("Engine", told)] if told else []


def _fitted(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    told = words.fitted_laws(summary)
    return [("Fitted", f"sizes of modelled messages, drawn from laws of real ones: {told}")] if told else []


def _tables(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    told = words.profile_tables(summary)
    return [("Tables", f"compute times interpolated between measurements: {told}")] if told else []


def _assumed(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    if not summary["assumed_sizes"]:
        return []
    told = f"sizes of modelled messages by {words.assumed_codecs(summary)}: from the codec's settings, not from content"
    return [("Assumed", told)]


def _calibrated(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    found = summary["calibration"]
    return [] if found is None else [("Calibrated", f"on {words.calibration(found)}")]


def _told(run: Run, meaning: str, *, real: bool) -> str:
    groups = words.groups_of(run.summary, real=real)
    return f"{groups} – {meaning}" if groups else "no group"


def _times(summary: Mapping[str, Any]) -> str:
    if summary["deterministic"]:
        return "virtual, from the cost models of devices, servers and links; the same in every run of this scenario"
    return "virtual, with compute times measured where this ran: they differ from run to run"


def environment(run: Run) -> Markup:
    source = element(
        "details", element("summary", "Scenario as resolved (YAML)"), element("pre", element("code", run.scenario_text))
    )
    digests = [(f"{name} digest", run.summary[f"{name}_digest"]) for name in ("event", "result")]
    told = [(name, element("code", digest)) for name, digest in digests if digest is not None]
    pairs = [*told, *_flat(run.environment)]
    return section("Environment and scenario", facts(pairs), element("h3", source))


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Versions and the like each on a line of its own."""
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping):
            yield name, join((f"{key} {told}" for key, told in sorted(value.items())), ", ")
        else:
            yield name, words.DASH if value is None else value


def _scenario(run: Run) -> Mapping[str, Any]:
    """The resolved scenario as plain data; nothing where the file is no mapping."""
    try:
        found = yaml.safe_load(run.scenario_text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
