"""What the processes of an emulated run are told: plain values, and what of a scenario they can do at all."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.actors.calls import HostSpec
from testbed.core.errors import ScenarioError
from testbed.run import Prepared
from testbed.scenarios.profiles import LinkProfile
from testbed.scenarios.schema import Group, Scenario, Servers
from testbed.sim.choosing import build_policies
from testbed.sim.request_table import NONE, Request
from testbed.studies.local.wire import PacedRate

CHANNELS = ("selective-repeat", "datagram")  # without losses they are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """One request; `after` is the one that must have ended `gap_ns` before it arrives, -1 for none."""

    request: int
    device: int
    arrival_ns: int
    after: int
    gap_ns: int
    prompt: tuple[int, ...]
    max_output_tokens: int
    sampling_seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDevice:
    """A device: its cut, its codec, and both ways of its link."""

    device: int
    split: int
    codec: str
    up: PacedRate
    down: PacedRate


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """What the server's process is told."""

    spec: HostSpec
    servers: Servers
    kv_capacity_bytes: int
    devices: tuple[PlannedDevice, ...]
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesPlan:
    """What a process of devices is told."""

    spec: HostSpec
    devices: tuple[PlannedDevice, ...]
    requests: tuple[PlannedRequest, ...]
    secret: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How one request fared, in ns since the start: its arrival, and when each of its tokens came."""

    request: int
    arrival_ns: int
    tokens_ns: tuple[int, ...]


def check_emulated(scenario: Scenario, num_layers: int) -> None:
    """Raise ScenarioError, located, for what an emulation with real shards and sockets does not do."""
    _refuse(scenario.topology is not None, "topology", "a topology is not emulated", "none")
    _refuse(scenario.seal != "none", "security.seal", "messages are not sealed here", "none")
    _refuse(scenario.alters_messages, "security.tamper", "messages are not altered here", "0")
    _refuse(scenario.stop_at is not None, "stop_at", "every request runs to its end here", "none")
    if len(scenario.servers) != 1 or scenario.servers[0].count != 1:
        raise ScenarioError("one server process is emulated", path="servers", allowed="one entry, count: 1")
    _check_server(scenario.servers[0])
    for index, (group, policy) in enumerate(zip(scenario.fleet, build_policies(scenario), strict=True)):
        kind = scenario.policy_of(group).kind
        (split, *_) = splits = policy.splits(num_layers)
        if kind != "static" or len(splits) != 1 or not 0 < split < num_layers:
            allowed = f"static, with a split from 1 to {num_layers - 1}"
            raise ScenarioError(
                "the emulation keeps one cut", path=f"fleet[{index}].policy", value=kind, allowed=allowed
            )
        _refuse(
            getattr(scenario.policy_of(group), "mode", "stateful") != "stateful",
            f"fleet[{index}].policy.mode", "the emulated server keeps its state", "stateful",
        )  # fmt: skip
        if not scenario.workload_of(group).ignore_eos:
            path = f"{scenario.workload_path(index)}.ignore_eos"
            raise ScenarioError("both runs need answers of equal length", path=path, value=False, allowed="true")
        _check_link(group, f"fleet[{index}].link")


def _check_server(servers: Servers) -> None:
    _refuse(servers.chunk_tokens is not None, "servers[0].chunk_tokens", "prompts run whole here", "none")
    _refuse(servers.admission is not None, "servers[0].admission", "everybody is let in here", "none")
    _refuse(servers.kv_cache.reserve != "full", "servers[0].kv_cache.reserve", "full lengths are reserved here", "full")


def _check_link(group: Group, path: str) -> None:
    link = group.link
    problem = "the emulation paces links of constant rate and delay only"
    _refuse(group.cell is not None, f"{path}.cell", problem, "none")
    for key in ("rate_up", "rate_down"):
        _refuse(getattr(link, key).kind != "constant", f"{path}.{key}", problem, "a rate such as 50 Mbit/s")
    _refuse(link.loss.kind != "bernoulli" or link.loss.p > 0, f"{path}.loss", problem, "0")  # type: ignore[attr-defined]
    _refuse(link.jitter is not None, f"{path}.jitter", problem, "none")
    _refuse(link.duplicate > 0, f"{path}.duplicate", problem, "0")
    _refuse(bool(link.outages), f"{path}.outages", problem, "none")
    _refuse(link.radio is not None, f"{path}.radio", problem, "none")
    _refuse(link.transport.kind not in CHANNELS, f"{path}.transport", problem, " or ".join(CHANNELS))


def _refuse(is_so: bool, path: str, problem: str, allowed: str) -> None:
    if is_so:
        raise ScenarioError(problem, path=path, allowed=allowed)


def planned_devices(prepared: Prepared) -> tuple[PlannedDevice, ...]:
    """All devices of a checked scenario."""
    scenario = prepared.scenario
    devices: list[PlannedDevice] = []
    for group in scenario.fleet:
        policy = scenario.policy_of(group)
        for _ in range(group.count):
            devices.append(
                PlannedDevice(
                    device=len(devices),
                    split=policy.split,  # type: ignore[attr-defined]  # a static policy's
                    codec=policy.codec,  # type: ignore[attr-defined]
                    up=_paced(group.link, "rate_up"),
                    down=_paced(group.link, "rate_down"),
                )
            )
    return tuple(devices)


def _paced(link: LinkProfile, key: str) -> PacedRate:
    rate_bps: int = getattr(link, key).rate
    return PacedRate(rate_bps=rate_bps, delay_ns=link.propagation_delay, mtu_bytes=link.mtu, header_bytes=link.header)


def planned_requests(prepared: Prepared) -> tuple[PlannedRequest, ...]:
    """All requests, in their order; a chain stays on its device."""
    requests = prepared.requests
    return tuple(
        _planned(requests[row], int(requests.after[row]), int(requests.gap_ns[row])) for row in range(len(requests))
    )


def _planned(request: Request, after: int, gap_ns: int) -> PlannedRequest:
    assert request.prompt is not None, "the emulated groups are real"
    return PlannedRequest(
        request=request.request,
        device=request.device,
        arrival_ns=request.arrival_ns if after == NONE else 0,
        after=after,
        gap_ns=gap_ns,
        prompt=request.prompt,
        max_output_tokens=request.max_output_tokens,
        sampling_seed=request.sampling_seed,
    )
