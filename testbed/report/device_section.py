"""The report's account of what became of devices by themselves: battery, heat and presence, by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.report import words
from testbed.report.markup import Markup, join, section, table
from testbed.results.folder import Run

_STATES = {
    "idle_j": "idle",
    "background_j": "other programs",
    "compute_j": "computing",
    "transmit_j": "sending",
    "receive_j": "receiving",
    "sleep_j": "asleep",
}


def devices(run: Run) -> Markup:
    """Nothing where nothing changes in any device."""
    summary = run.summary
    if summary.get("device_state") is None:
        return join([])
    states = {name: group["device_state"] for name, group in summary["by_group"].items() if group["device_state"]}
    tables = [
        table(
            "Presence",
            ["group", "devices", "off or away", "asleep", "left or crashed"],
            [_presence_row(name, state) for name, state in states.items()],
        ),
        *_batteries({name: state["battery"] for name, state in states.items() if state["battery"]}),
        *_heats({name: state["heat"] for name, state in states.items() if state["heat"]}),
        table(
            "Energy of all devices by what they did",
            ["state", "energy"],
            [[name, words.energy(summary["device_energy_j"][state])] for state, name in _STATES.items()],
        ),
    ]
    note = (
        "Shares of time are of the run's; a throttled share is of the time in which stages ran. All of it is modelled."
    )
    return section("Battery, heat and presence", *tables, note=note)


def _presence_row(name: str, state: Mapping[str, Any]) -> list[object]:
    shares = [words.share(state[key]) for key in ("off_share", "asleep_share")]
    return [name, words.number(state["devices"]), *shares, words.number(state["departures"])]


def _batteries(found: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    columns = ["group", "devices", "level at the end", "lowest", "charged", "devices cut off", "cut-offs"]
    rows = [
        [
            name,
            words.number(battery["devices"]),
            words.share(battery["mean_level"]),
            words.share(battery["lowest_level"]),
            words.energy(battery["charged_j"]),
            words.number(battery["cut_off_devices"]),
            words.number(battery["cutoffs"]),
        ]
        for name, battery in found.items()
    ]
    return [table("Battery", columns, rows)] if rows else []


def _heats(found: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    rows = [
        [
            name,
            words.number(heat["devices"]),
            words.degrees(heat["highest_c"]),
            words.share(heat["throttled_share"]),
            words.number(heat["shutdowns"]),
        ]
        for name, heat in found.items()
    ]
    return [table("Heat", ["group", "devices", "warmest", "throttled", "shut off"], rows)] if rows else []
