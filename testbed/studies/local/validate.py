"""`testbed validate-local`: each scenario point for real and by the simulator, and how far apart they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from testbed.core.errors import ScenarioError
from testbed.run import Prepared, prepare
from testbed.scenarios.profiles import DeviceProfile, LinkProfile, ServerProfile
from testbed.scenarios.schema import Scenario
from testbed.sim.check import check_scenario
from testbed.sim.measured import check_reach
from testbed.sim.request_table import RequestTable
from testbed.studies.local.compare import Error, compared
from testbed.studies.local.emulate import emulation, num_processes
from testbed.studies.local.model import model, modelled_scenario
from testbed.studies.local.plan import check_emulated

Profiles = tuple[DeviceProfile, ServerProfile, LinkProfile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One scenario at one load, checked: what both runs get."""

    name: str
    prepared: Prepared
    modelled: Scenario
    requests: RequestTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One repeat of a trial: the errors, and how busy this machine was with it."""

    name: str
    repeat: int
    errors: tuple[Error, ...]
    server_share: float  # of the time, computing
    devices_share: float  # of the busiest process of devices
    load_average: float  # of the system, at the end


def trial(name: str, scenario: Scenario, profiles: Profiles, load: float = 1.0) -> Trial:
    """Arrivals `load` times as frequent. Raises ScenarioError for what can't be emulated or modelled."""
    if load <= 0:
        raise ScenarioError("not a load", path="--load", value=load, allowed="more than 0")
    real = scenario.model_copy(
        update={"fleet": [group.model_copy(update={"compute": "real"}) for group in scenario.fleet]}
    )
    prepared = prepare(real)
    check_emulated(real, prepared.source.shape.num_layers)
    device, server, link = profiles
    modelled = modelled_scenario(real, device, server, link.propagation_delay)
    check_scenario(modelled, prepared.source)
    check_reach(modelled, prepared.source.shape, prepared.requests)
    requests = prepared.requests
    if load != 1.0:
        scaled = {key: np.rint(getattr(requests, key) / load).astype(np.int64) for key in ("arrival_ns", "gap_ns")}
        requests = replace(requests, **scaled)
    return Trial(name=name, prepared=replace(prepared, requests=requests), modelled=modelled, requests=requests)


def run_trials(trials: Sequence[Trial], repeats: int, observe: Callable[[Ran], None]) -> list[Ran]:
    """Every trial so often, one after the other: point by point, so that repeats are minutes apart."""
    hosts = num_processes(max(len(_devices(item)) for item in trials))
    ran: list[Ran] = []
    with emulation(hosts) as emulator:
        modelled = [model(item.modelled, item.prepared, item.requests, hosts) for item in trials]
        for repeat in range(repeats):
            for item, told in zip(trials, modelled, strict=True):
                found = emulator.run(item.prepared)
                span_ns = max(timing.tokens_ns[-1] for timing in found.timings)
                ran.append(
                    Ran(
                        name=item.name,
                        repeat=repeat,
                        errors=tuple(compared(item.name, repeat, found.timings, told)),
                        server_share=found.server_busy_ns / span_ns,
                        devices_share=max(found.device_busy_ns) / span_ns,
                        load_average=os.getloadavg()[0],
                    )
                )
                observe(ran[-1])
    return ran


def _devices(item: Trial) -> list[int]:
    return [place for group in item.prepared.scenario.fleet for place in range(group.count)]


def all_errors(ran: Iterable[Ran]) -> list[Error]:
    return [error for item in ran for error in item.errors]
