"""What can't be right about routers, autoscalers and failures is refused in one line."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.scenarios.problems import validate
from testbed.scenarios.schema import Scenario
from testbed.sim.check import check_scenario
from testbed.sim.check_cluster import check_cluster
from tests.sim_runs import TINY_SOURCE, group, link, scenario, server

AUTOSCALE = {"signal": "queue", "target": 4, "interval": "1 s", "cold_start": "9 s", "max": 4}
PAIR = {"between": ["north", "south"], "delay": "9 ms"}


def refused(**changes):
    """The one line about it."""
    data = scenario().model_dump(mode="json") | changes
    with pytest.raises(ScenarioError) as caught:
        check_scenario(validate(Scenario, data), TINY_SOURCE)
    return str(caught.value)


def cloud(**changes):
    return [{"server": server(), **changes}]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"min": 5}, "min: more than max (got 5); allowed: at most 4"),
        ({"max": 0}, "max: too small (got 0); allowed: at least 1"),
        ({"target": None}, "target: required key is missing; allowed: a level of outstanding requests a server"),
        ({"target": 0.0}, "target: too small (got 0.0); allowed: at least 1e-06"),
        ({"up": 3}, "target: thresholds contradict each other (got 4.0); allowed: at most 3, which up is"),
        ({"down": 5}, "down: thresholds contradict each other (got 5.0); allowed: at most 4, which target is"),
        ({"cold_start": "-1 s"}, "cold_start: time too small (got '-1 s'); allowed: at least 0"),
        ({"interval": "0 s"}, "interval: time too small (got '0 s'); allowed: more than 0"),
        (
            {"signal": "utilisation", "target": 70},
            "target: more than all: this is the share of time that servers compute (got 70.0); allowed: 0 to 1",
        ),
        (
            {"signal": "utilisation", "target": 0.7, "min": 0},
            "min: no server, no utilisation to measure: nothing would ever start one (got 0); "
            "allowed: at least 1, or signal: queue",
        ),
        (
            {"signal": "slo", "target": None, "up": 0.05},
            "down: required key is missing; allowed: a level of the share of requests that miss the slo",
        ),
        (
            {"signal": "slo", "up": 0.05, "down": 0.01},
            "target: the share of missed requests says which way, not how many servers it takes (got 4.0); "
            "allowed: up and down alone",
        ),
        (
            {"signal": "slo", "target": None, "up": 0.05, "down": 0.01},
            "signal: without an slo nobody can miss it (got 'slo'); "
            "allowed: an slo beside the servers, or queue, utilisation",
        ),
        ({"cooldwn": "1 s"}, None),
    ],
)
def test_autoscalers(change, expected):
    line = refused(servers=cloud(autoscale=AUTOSCALE | change))
    if expected is None:
        assert line.endswith("did you mean 'cooldown'?")
    else:
        assert line == f"servers[0].autoscale.{expected}"


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ({"count": 0}, "count: nobody would ever serve (got 0); allowed: at least 1, or autoscale"),
        (
            {"count": 5, "autoscale": AUTOSCALE},
            "count: as many run at the start, and the autoscaler would not let them (got 5); allowed: 1 to 4",
        ),
        (
            {"count": 2, "down": [{"server": 2, "at": "1 s"}]},
            "down[0].server: no such worker in the group (got 2); allowed: 0 to 1",
        ),
        (
            {"down": [{"at": "3 s", "until": "2 s"}]},
            "down[0].until: a repair comes after its failure (got '2.00 s'); allowed: more than `at`, 3.00 s",
        ),
        ({"failures": {"mean_up": "1 h"}}, "failures.mean_down: required key is missing"),
        (
            {"on_failure": "retry"},
            "on_failure: not one of the choices (got 'retry'); allowed: fail, requeue",
        ),
    ],
)
def test_servers(servers, expected):
    assert refused(servers=cloud(**servers)).startswith(f"servers[0].{expected}")


@pytest.mark.parametrize(
    ("router", "device_region", "server_region", "expected"),
    [
        (
            "nearest-region",
            None,
            "north",
            "fleet[0].region: router nearest-region goes by distance, and this has no region; "
            "allowed: a region everywhere",
        ),
        (
            "nearest-region",
            "north",
            None,
            "servers[0].region: router nearest-region goes by distance, and this has no region; "
            "allowed: a region everywhere",
        ),
        (
            {"kind": "nearest-region", "distances": [{"between": ["north", "soth"], "delay": "9 ms"}]},
            "north",
            "south",
            "router.distances[0].between[1]: nobody is in this region (got 'soth'); allowed: north, south; "
            "did you mean 'south'?",
        ),
        (
            {"kind": "spill-over", "threshold": 3, "distances": [PAIR]},
            "north",
            "west",
            "router.distances[0].between[1]: nobody is in this region (got 'south'); allowed: north, west; "
            "did you mean 'north'?",
        ),
        (
            {"kind": "nearest-region", "distances": [PAIR, {"between": ["south", "north"], "delay": "8 ms"}]},
            "north",
            "south",
            "router.distances[1].between: an earlier entry is about these regions (got 'north, south')",
        ),
        (
            {"kind": "nearest-region", "distances": [{"between": ["north", "north"], "delay": "8 ms"}]},
            "north",
            "south",
            "router.distances[0].between: a region is at no distance from itself (got 'north'); "
            "allowed: two different regions",
        ),
        ({"kind": "spill-over"}, "north", "south", "router.threshold: required key is missing"),
        (
            {"kind": "kv-affinity", "otherwise": "kv-affinity"},
            None,
            None,
            "router.otherwise: what to do without affinity is not affinity (got 'kv-affinity')",
        ),
        (
            {"kind": "kv-affinity", "otherwise": {"kind": "random", "health_delay": "1 s"}},
            None,
            None,
            "router.otherwise.health_delay: servers' health is watched by the outer router (got '1.00 s'); "
            "allowed: health_delay beside otherwise",
        ),
    ],
)
def test_routers(router, device_region, server_region, expected):
    fleet = [group(link=link(), region=device_region)]
    assert refused(router=router, fleet=fleet, servers=cloud(region=server_region)) == expected


def test_three_regions_need_every_pair_that_may_be_asked_for():
    router = {"kind": "nearest-region", "distances": [PAIR]}
    fleet = [group(region="north"), group("others", region="south")]
    servers = [{"server": server(), "region": "south"}, {"name": "far", "server": server(), "region": "north"}]
    scenario(router=router, fleet=fleet, servers=servers)
    servers[1]["region"] = "west"
    fleet[0]["region"] = "north"
    line = refused(router=router, fleet=fleet, servers=servers)
    assert line == "router.distances: no distance between north and west; allowed: an entry for every pair"


def test_servers_of_real_groups_do_not_fail():
    built = scenario(fleet=[group(compute="real")], servers=cloud(down=[{"at": "1 s"}]))
    with pytest.raises(ScenarioError, match="begin anew"):
        check_cluster(built)


def test_a_written_scenario_reads_back_as_the_same():
    servers = cloud(
        autoscale=AUTOSCALE, down=[{"at": "1 s"}], failures={"mean_up": "1 h", "mean_down": "1 min"}, region="north"
    )
    router = {"kind": "kv-affinity", "otherwise": {"kind": "nearest-region", "distances": [PAIR]}, "spill": 3}
    built = scenario(servers=servers, router=router, fleet=[group(region="south")])
    assert Scenario.model_validate(built.as_data()) == built
