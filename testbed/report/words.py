"""Figures as people read them, on the console and in the page; what is not defined is a dash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.core.events import Hop, Outcome
from testbed.core.units import format_seconds, format_si

DASH = "–"
_KILO = 1000
_MAX_GROUPS = 4  # named one by one

HOP_WORDS: Mapping[str, str] = {
    Hop.DEVICE_WAIT: "device: wait",
    Hop.FRONT: "device: front layers",
    Hop.ENCODE: "device: encode",
    Hop.SEAL: "device: encrypt",
    Hop.UP_CONNECT: "up: connect",
    Hop.UP_WINDOW: "up: window",
    Hop.UP_QUEUE: "up: queue",
    Hop.UP_SERIALISE: "up: serialise",
    Hop.UP_PROPAGATE: "up: propagate",
    Hop.UP_JITTER: "up: jitter",
    Hop.UP_RETRANSMIT: "up: retransmit",
    Hop.ROUTER_WAIT: "router: no server up",
    Hop.SERVER_WAIT: "server: wait",
    Hop.OPEN: "server: decrypt",
    Hop.DECODE: "server: decode",
    Hop.BACK: "server: back layers",
    Hop.SEAL_TOKEN: "server: encrypt",
    Hop.DOWN_CONNECT: "down: connect",
    Hop.DOWN_WINDOW: "down: window",
    Hop.DOWN_QUEUE: "down: queue",
    Hop.DOWN_SERIALISE: "down: serialise",
    Hop.DOWN_PROPAGATE: "down: propagate",
    Hop.DOWN_JITTER: "down: jitter",
    Hop.DOWN_RETRANSMIT: "down: retransmit",
    Hop.OPEN_TOKEN: "device: decrypt",
    Hop.CUT_SHORT: "cut short",
}

TROUBLES: Mapping[str, str] = {
    Outcome.OOM: "out of memory",
    Outcome.FAILED: "failed",
    Outcome.LINK_TIMEOUT: "link timed out",
    Outcome.AUTHENTICATION: "not authentic",
    Outcome.BATTERY: "battery empty",
    Outcome.THERMAL: "overheated",
    Outcome.CHURN: "device away",
    Outcome.SERVER_FAILURE: "server failed",
    Outcome.INCOMPLETE: "unfinished",
}
_ALWAYS_TOLD = (Outcome.OOM, Outcome.FAILED, Outcome.INCOMPLETE)


def troubles(summary: Mapping[str, Any]) -> dict[str, str]:
    """Every way of not completing that a table has room for: what happened, and what is always looked for."""
    return {outcome: noun for outcome, noun in TROUBLES.items() if summary[outcome] or outcome in _ALWAYS_TOLD}


def seconds(value: float | None) -> str:
    return DASH if value is None else _together(format_seconds(value))


def _together(text: str) -> str:
    """A number never parts from its unit."""
    return text.replace(" ", "\u00a0")


def size(value: float | None) -> str:
    """Bytes, whole below a kilobyte."""
    if value is None:
        return DASH
    return _together(f"{value:.0f} B" if abs(value) < _KILO else format_si(value, "B"))


def energy(value: float | None) -> str:
    return DASH if value is None else _together(format_si(value, "J"))


def share(value: float | None) -> str:
    return DASH if value is None else _together(f"{100 * value:.1f} %")


def number(value: float | None) -> str:
    """A count with thin thousands, or three significant digits."""
    if value is None:
        return DASH
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    return f"{value:.3g}" if abs(value) < _KILO else f"{value:,.0f}".replace(",", "\u202f")


def spread(values: Mapping[str, float] | None, *names: str) -> list[str]:
    """The named statistics of a latency, a dash each where no request completed."""
    return [seconds(None if values is None else values[name]) for name in names]


def plural(count: int, noun: str) -> str:
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def groups_of(summary: Mapping[str, Any], *, real: bool) -> str:
    """Which groups ran shards, or which did not, each as "name (3 × kind)"; empty where there is none."""
    chosen = {name: group for name, group in summary["by_group"].items() if group["real"] is real}
    told = [f"{name} ({number(group['devices'])} × {group['device_kind']})" for name, group in chosen.items()]
    if len(told) <= _MAX_GROUPS:
        return ", ".join(told)
    num_devices = sum(group["devices"] for group in chosen.values())
    first = ", ".join(told[: _MAX_GROUPS - 1])
    return f"{plural(len(told), 'group')} of {plural(num_devices, 'device')}: {first} and others"


def num_requests(summary: Mapping[str, Any]) -> int:
    """All that arrived."""
    return sum(int(summary[outcome]) for outcome in Outcome)


def degrees(value: float) -> str:
    return f"{value:.1f}\u00a0°C"


def presence(state: Mapping[str, Any]) -> str:
    """How much of the time devices were there, in one line."""
    told = f"{share(state['off_share'])} of the time off or away, {share(state['asleep_share'])} asleep"
    return f"{told}; left or crashed {plural(state['departures'], 'time')}"


def battery(found: Mapping[str, Any]) -> str:
    """What is left in batteries, in one line."""
    levels = f"{share(found['mean_level'])} left in the mean, {share(found['lowest_level'])} at least"
    return f"{levels}; {number(found['cut_off_devices'])} of {plural(found['devices'], 'device')} ran down"


def heat(found: Mapping[str, Any]) -> str:
    """How warm devices were, in one line."""
    throttled = f"{share(found['throttled_share'])} of computing throttled"
    return f"{degrees(found['highest_c'])} at most, {throttled}; shut off {plural(found['shutdowns'], 'time')}"


def encryption(found: Mapping[str, Any]) -> str:
    """What sealing every message added, in one line."""
    spent, used = found["time_s"], found["energy_j"]
    return (
        f"{found['suite']}: {size(found['bytes_up'])} up, {size(found['bytes_down'])} down; "
        f"devices {seconds(spent['devices'])}, {energy(used['devices'])}; "
        f"servers {seconds(spent['servers'])}, {energy(used['servers'])}"
    )


def fitted_laws(summary: Mapping[str, Any]) -> str:
    """The laws that modelled messages were drawn from, with their errors on held-out text."""
    return "; ".join(
        f"{law['codec']} at split {law['split']} (off by {law['prefill_error']:.1%} of a prefill "
        f"and {law['decode_error']:.1%} of a step on other text)"
        for law in summary.get("fitted_sizes", [])
    )


def profile_tables(summary: Mapping[str, Any]) -> str:
    """The tables that durations came from, what they lack and how far a run went beyond them."""
    return "; ".join(_profile_table(use) for use in summary.get("profile_tables", []))


def _profile_table(use: Mapping[str, Any]) -> str:
    told = f"{use['profile']} by {use['table']}"
    if use["by_roofline"]:
        told += f", with {', '.join(name.replace('_', ' ') for name in use['by_roofline'])} by the roofline"
    if use["extrapolated"]:
        beyond = ", ".join(f"{axis} to {place}" for axis, place in use["extrapolated"].items())
        told += f"; EXTRAPOLATED: {beyond}"
    return told


def assumed_codecs(summary: Mapping[str, Any]) -> str:
    """The codecs whose sizes modelled groups assumed, in a row."""
    return ", ".join(summary["assumed_sizes"])


def calibration(found: Mapping[str, Any]) -> str:
    """What shards read before they started."""
    return f"{plural(found['num_tokens'], 'token')} of {found['text']}"


def engine(chosen: Mapping[str, Any]) -> str:
    """How requests were moved, where a planner would want to know."""
    if chosen["name"] == "cohorts":
        return "compiled cohorts: what a process a request would give, to the nanosecond"
    why = [reason for reason in chosen["why"] if reason not in {"small", "asked for"}]
    return f"a process a request, slower than cohorts, because of: {'; '.join(why)}" if why else ""


def dollars(value: float | None) -> str:
    """US dollars, three digits at least."""
    return DASH if value is None else f"${value:,.2f}" if value >= 100 else f"${value:.3g}"  # noqa: PLR2004


def cost(found: Mapping[str, Any]) -> str:
    """What servers cost, and what for."""
    told = f"{dollars(found['total_usd'])} for servers"
    if found["per_1000_output_tokens_usd"] is not None:
        told += f", {dollars(found['per_1000_output_tokens_usd'])} per 1,000 output tokens"
    if found["per_request_usd"] is not None:
        told += f", {dollars(found['per_request_usd'])} per completed request"
    return told


def operation(found: Mapping[str, Any]) -> str:
    """How many servers were up, and how they failed."""
    groups = (
        f"{name} {number(entry['mean'])} up in the mean, {entry['min']} to {entry['max']}"
        for name, entry in found["by_group"].items()
    )
    told = f"{'; '.join(groups)}; {plural(found['scale_events'], 'order')} by autoscalers"
    if found["failures"]:
        told += f"; {plural(found['failures'], 'failure')}, available {share(found['availability'])} of the time"
    return told
