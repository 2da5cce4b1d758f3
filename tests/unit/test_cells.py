"""Cells in scenarios: who shares air with whom, what a run's events say of it, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import simpy
import yaml

from testbed.core.errors import ScenarioError
from testbed.core.registry import DISCIPLINES
from testbed.network_models.build import build_access
from testbed.network_models.sharing.cell import Cell, Seat
from testbed.network_models.transfer import Direction
from testbed.report import network_sections
from testbed.results.folder import read_run
from testbed.run import prepare, run
from testbed.scenarios.cells import Cells
from testbed.scenarios.load import build_scenario
from testbed.scenarios.overrides import apply_overrides
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import LinkProfile
from testbed.scenarios.schema import Scenario
from testbed.sim.check import check_scenario
from tests.golden.digest_runs import digest_of
from tests.perf.sharing_table import contend
from tests.sim_runs import MS, TINY_SOURCE, group, link, run_world, scenario, server, spans_of, workload
from tests.sim_runs import ends as ends_of
from tests.unit.tiny_scenario import TINY, tiny

SENT = workload(arrivals={"kind": "times", "times": ["0 s"]})


def cell(**changes):
    return {"name": "mast", **changes}


def built(*, cells=(), groups=2, of=None, **changes):
    """Groups of one device each, all asking at once; `of` names each group's cell."""
    fleet = [
        group(f"g{place}", **({} if of is None or of[place] is None else {"cell": of[place]}), **changes)
        for place in range(groups)
    ]
    return scenario(cells=list(cells), fleet=fleet, workload=SENT)


def last_ends(events):
    return {request: end.time_ns for request, end in ends_of(events).items()}


@pytest.mark.parametrize("kind", sorted(DISCIPLINES))
def test_devices_slow_each_other_in_one_cell_and_not_in_two(kind):
    apart = last_ends(run_world(built())[1])
    one = last_ends(run_world(built(cells=[cell(discipline=kind)], of=["mast", "mast"]))[1])
    two = last_ends(run_world(built(cells=[cell(discipline=kind), cell(name="b")], of=["mast", "b"]))[1])
    assert max(one.values()) > max(apart.values())
    assert two == apart


def test_processor_sharing_stretches_two_equal_messages_alike():
    # Both devices send at the same instant: each has half the air, so each is clocked out twice as long.
    _, alone = run_world(built(groups=1))
    _, events = run_world(built(cells=[cell()], of=["mast", "mast"]))
    serialised = {hop: end - start for _, hop, start, end in spans_of(alone)[:8]}["up_serialise"]
    for request in (0, 1):
        first = next(end - start for _, hop, start, end in spans_of(events, request) if hop == "up_serialise")
        assert first == 2 * serialised


def test_a_cell_shares_its_air_before_a_topology_too():
    edge = {"between": ["site", "centre"], "rate": "1 Gbit/s", "delay": "3 ms"}
    graph = {"nodes": [{"name": "site"}, {"name": "centre"}], "edges": [edge]}
    servers = [{"name": "cloud", "server": server(), "at": "centre"}]

    def ends_with(**of_group):
        fleet = [group(name, at="site", **of_group) for name in "ab"]
        built_ = scenario(cells=[cell()], fleet=fleet, servers=servers, topology=graph, workload=SENT)
        return last_ends(run_world(built_)[1])

    assert max(ends_with(cell="mast").values()) > max(ends_with().values())


def test_an_override_reaches_into_a_discipline_that_has_only_its_name():
    data = {"cells": [cell(discipline="proportional-fair")]}
    changed = apply_overrides(data, ["cells.mast.discipline.slot=2 ms"])
    assert changed["cells"][0]["discipline"] == {"kind": "proportional-fair", "slot": "2 ms"}


def test_a_group_is_dealt_to_its_cells_in_turn():
    fleet = [group("a", count=5, cell="mast"), group("b", count=2, cell="mast")]
    world, _ = run_world(scenario(cells=[cell(count=3)], fleet=fleet, workload=SENT))
    assert [(one.name, one.air[Direction.UP].num_members) for one in world.cells] == [
        ("mast-0", 3),
        ("mast-1", 3),
        ("mast-2", 1),
    ]


def test_a_cell_without_members_is_allowed():
    assert digest_of(built(cells=[cell()])) == digest_of(built())


def both_ways(duplex):
    """When a message up and one down end that are handed over together."""
    env, cells = simpy.Environment(), Cells(name="mast", discipline="fifo", duplex=duplex)
    profile = LinkProfile(**link())
    access = build_access(env, profile, entity=0, seed=1, seat=Seat(Cell(env, cells, "mast")))
    done = [access.up.send(20_000), access.down.send(20_000)]
    env.run()
    return [event.value.ended_ns for event in done]


def test_half_duplex_makes_the_two_directions_wait_for_each_other():
    up, down = both_ways("full")
    assert up == 10 * MS + 20_560_000  # 14 packets with 40 bytes of headers each, at 8 Mbit/s
    assert down == 10 * MS + 20_560_000 // 2
    assert both_ways("half") == [up, up + 20_560_000 // 2]


def lossy(count, **of_cell):
    wild = link(loss=0.1, jitter={"law": "gamma", "mean": "5 ms", "std": "2 ms"}, mtu="200 B")
    fleet = [group("a", count=count, cell="mast", link=wild), group("b", count=2, cell="mast", link=wild)]
    return scenario(cells=[cell(collision=0.02, **of_cell)], fleet=fleet, workload=workload(), seed=5)


@pytest.mark.parametrize("kind", sorted(DISCIPLINES))
def test_the_same_scenario_has_the_same_digest_under_any_hash_seed(kind):
    here = digest_of(lossy(4, discipline=kind))
    assert here == digest_of(lossy(4, discipline=kind))
    if kind == "weighted":  # one process is enough: nothing in a discipline is hashed by value
        code = (
            "from tests.unit.test_cells import digest_of, lossy\n"
            "print(digest_of(lossy(4, discipline='weighted')), end='')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == here


TAKES = "in a cell with a discipline that takes weights"
NO_CELL = "fleet[0].cell: there is no such cell (got 'mast'); allowed: "
SHORT = {"kind": "proportional-fair", "memory": "10 us"}
BAD = [  # the scenario's cells, the group's own keys, what is said
    ([cell(name="mats")], {"cell": "mast"}, NO_CELL + "mats; did you mean 'mats'?"),
    ([], {"cell": "mast"}, NO_CELL + "an entry under cells, first"),
    ([cell(), cell()], {}, "cells[1].name: an earlier cell has this name (got 'mast')"),
    ([cell(count=2), cell(name="mast-1")], {}, "cells[1].name: an earlier cell has this name (got 'mast-1')"),
    ([cell(discipline="weighted")], {"weight": 0}, "fleet[0].weight: too small (got 0); allowed: at least 1"),
    (
        [cell()],
        {"cell": "mast", "weight": 2},
        f"fleet[0].weight: processor-sharing takes no weights (got 2); allowed: {TAKES}",
    ),
    ([], {"weight": 2}, f"fleet[0].weight: only a cell has weights (got 2); allowed: {TAKES}"),
    (
        [cell(discipline="fofi")],
        {},
        "cells[0].discipline.kind: unknown discipline (got 'fofi'); "
        f"allowed: {', '.join(sorted(DISCIPLINES))}; did you mean 'fifo'?",
    ),
    (
        [cell(discipline=SHORT)],
        {},
        "cells[0].discipline.memory: shorter than a slot (got '10.0 µs'); allowed: at least 1.00 ms",
    ),
    (
        [cell()],
        {"cell": "mast", "link": link(queue={"kind": "codel", "limit": "1 MB"})},
        "fleet[0].link.queue: links in a cell have drop-tail queues (got 'codel'); allowed: drop-tail",
    ),
    ([cell(collision="200 %")], {}, "cells[0].collision: ratio too large (got '200 %'); allowed: at most 0.999"),
    (
        [cell(duplex="haf")],
        {},
        "cells[0].duplex: not one of the choices (got 'haf'); allowed: full, half; did you mean 'half'?",
    ),
]


@pytest.mark.parametrize(("cells", "keys", "problem"), BAD)
def test_what_is_wrong_with_a_cell_is_said_at_its_place(cells, keys, problem):
    data = scenario().as_data() | {"cells": cells}
    data["fleet"][0].update(keys)
    with pytest.raises(ScenarioError) as caught:
        validate(Scenario, data)
    assert str(caught.value) == problem


def test_messages_are_refused_where_the_cell_needs_packets():
    sent = scenario(cells=[cell()], fleet=[group(cell="mast", link=link(resolution="messages"))])
    with pytest.raises(ScenarioError) as caught:
        check_scenario(sent, TINY_SOURCE)
    assert str(caught.value) == (
        "fleet[0].link.resolution: this link can't be computed by messages: when a packet leaves depends on what the "
        "cell's other links send later (got 'messages'); allowed: packets, auto"
    )


def test_the_example_of_the_guide_is_valid():
    text = Path(__file__).parents[2].joinpath("docs/network.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.split("## Sharing")[1].split("```yaml")[1].split("```")[0])
    read = build_scenario({**TINY, **example}, base=Path())
    assert [name for cells in read.cells for name in cells.names()] == ["mast-0", "mast-1", "kiosk"]
    assert [group.weight for group in read.fleet] == [None, 3, None]


@pytest.mark.parametrize("kind", sorted(DISCIPLINES))
def test_more_devices_wait_longer_and_collide_more(kind):
    plain, rough = Cells(name="mast", discipline=kind), Cells(name="mast", discipline=kind, collision=0.05)
    few_ms, few_lost = contend(plain, 2, seconds=2)
    many_ms, many_lost = contend(plain, 25, seconds=2)
    assert few_ms.mean() < many_ms.mean()
    assert few_lost == many_lost == 0
    assert 0 < contend(rough, 8, seconds=2)[1] < contend(rough, 25, seconds=2)[1]


def test_one_more_device_changes_no_draw_of_the_others():
    # Jitter and loss of the first group are its own, whatever the second is: with air to spare both see them alike.
    wild = link(loss=0.6, jitter={"law": "gamma", "mean": "5 ms", "std": "2 ms"}, resolution="packets")
    first = group("a", cell="mast", link=wild)
    alone, beside = (
        run_world(scenario(cells=[cell()], fleet=fleet, workload=SENT, seed=4))[0]
        for fleet in ([first], [first, group("b", count=3, cell="mast", link=wild)])
    )
    counted = [world.devices[0].links.snapshot(Direction.UP) for world in (alone, beside)]
    assert counted[0].lost_packets == counted[1].lost_packets > 0
    assert counted[0].retransmissions == counted[1].retransmissions


@pytest.mark.parametrize("duplex", ["full", "half"])
def test_a_cells_account_is_that_of_its_links(duplex):
    world, _ = run_world(built(cells=[cell(duplex=duplex)], groups=3, of=["mast"] * 3))
    now_ns = world.clock.now_ns
    found = world.cells[0].ends(now_ns)
    assert [entry.direction for entry in found] == (["up", "down"] if duplex == "full" else ["both"])
    links = [end for device in world.devices for end in device.link_ends()]
    assert sum(entry.carried_bytes for entry in found) == sum(end.wire_bytes for end in links)
    assert {entry.num_links for entry in found} == {3}
    for entry in found:
        assert 0 < entry.busy_ns <= entry.contending_ns <= 3 * len(links) * entry.busy_ns
        assert entry.busy_ns <= now_ns


def test_the_summary_and_the_report_tell_of_cells(tmp_path):
    data = {**tiny(("fleet.0.cell", "mast")), "cells": [cell()]}
    run(prepare(build_scenario(data, base=tmp_path)), tmp_path / "run")
    found = read_run(tmp_path / "run")
    assert [(one["cell"], one["direction"], one["links"]) for one in found.summary["cells"]] == [
        ("mast", "up", 2), ("mast", "down", 2),
    ]  # fmt: skip
    up = found.summary["cells"][0]
    assert 0 < up["utilisation"] < 1 <= up["contending"] <= 2
    assert "Shared air" in network_sections.cells(found)
    assert network_sections.cells(replace(found, summary={**found.summary, "cells": None})) == ""
