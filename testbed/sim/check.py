"""What can be known to be impossible before anything runs: refused as the user's mistake, with its YAML path."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from testbed.actors.memory import free_bytes, server_weights_bytes
from testbed.actors.roofline import check_parallel
from testbed.actors.weight_plan import check_saved, check_weights, weight_laws
from testbed.core.errors import ScenarioError
from testbed.core.units import NS_PER_S, format_si
from testbed.models.shape import ModelShape
from testbed.models.source import ModelSource
from testbed.network_models.build import check_link
from testbed.scenarios.schema import Group, Scenario
from testbed.sim.check_cluster import check_cluster
from testbed.sim.check_devices import check_device
from testbed.sim.check_serving import check_serving
from testbed.sim.check_topology import check_topology
from testbed.sim.choosing import Policy, build_policies
from testbed.sim.fleet import Fleet
from testbed.sim.measured import BITS, check_reach, check_tables
from testbed.sim.requests import RequestTable
from testbed.workloads.instants import LAST_NS


def check_scenario(scenario: Scenario, source: ModelSource) -> None:
    """Raise ScenarioError for what model, devices, links or servers can't have, and a real group without weights."""
    policies = build_policies(scenario)
    if scenario.tokenizer is not None and not Path(scenario.tokenizer).exists():
        raise ScenarioError("no such tokenizer file", path="tokenizer", value=scenario.tokenizer)
    if scenario.weights is not None:
        check_weights(scenario.weights, source.shape)
    for index, group in enumerate(scenario.fleet):
        _check_link(group, f"fleet[{index}].link")
    for index, (group, policy) in enumerate(zip(scenario.fleet, policies, strict=True)):
        if group.compute == "real" and not source.has_weights:
            raise ScenarioError(
                f"model {source.name} is known by its shape only and has no weights to compute with",
                path=f"fleet[{index}].compute",
                value="real",
                allowed="modelled, or another model: pebble, a folder or a Hugging Face id",
            )
        for split in policy.splits(source.shape.num_layers):
            _check_split(scenario, source.shape, index, split)
    check_topology(scenario)
    Fleet(scenario)  # reads its traces
    check_serving(scenario)
    check_cluster(scenario)
    _check_servers(scenario, source.shape, policies)
    check_tables(scenario, source.shape)
    _check_saved(scenario, source, policies)


def check_requests(scenario: Scenario, source: ModelSource, requests: RequestTable) -> None:
    """Raise ScenarioError for a request that never comes, and a real one that is longer than the model's positions,
    and passes beyond a measured table.
    """
    limit = source.shape.max_positions
    is_real = np.array([group.compute == "real" for group in scenario.fleet])[requests.group]
    too_long = is_real & (requests.prompt_tokens + requests.max_output_tokens > limit)
    for row in np.flatnonzero(too_long)[:1].tolist():
        raise ScenarioError(
            f"prompt and output of request {row} are longer than the model's positions",
            path=scenario.workload_path(int(requests.group[row])),
            value=f"{requests.prompt_tokens[row]} + {requests.max_output_tokens[row]} tokens",
            allowed=f"at most {limit} tokens together",
        )
    for row in np.flatnonzero(requests.arrival_ns > LAST_NS)[:1].tolist():
        raise ScenarioError(
            f"request {row} comes too late",
            path=f"{scenario.workload_path(int(requests.group[row]))}.arrivals",
            value=f"{requests.arrival_ns[row] / NS_PER_S:.3g} s",
            allowed="a time in the first 36500 d",
        )
    check_reach(scenario, source.shape, requests)


def _check_link(group: Group, path: str) -> None:
    try:
        check_link(group.link, in_cell=group.cell is not None)
    except ScenarioError as error:
        raise error.below(path) from None


def _check_split(scenario: Scenario, shape: ModelShape, index: int, split: int) -> None:
    path = _split_path(scenario, index)
    if split > shape.num_layers:
        raise ScenarioError(
            f"the model has {shape.num_layers} layers", path=path, value=split, allowed=f"0 to {shape.num_layers}"
        )
    mode = getattr(scenario.policy_of(scenario.fleet[index]), "mode", "stateful")
    if mode != "stateful" and not 0 < split < shape.num_layers:
        raise ScenarioError(
            f"with split {split} the whole model is on one side and no mode applies",
            path=path.removesuffix("split") + "mode", value=mode, allowed="stateful",
        )  # fmt: skip
    if split < shape.num_layers and not scenario.servers:
        raise ScenarioError(
            "layers behind the cut need a server, and there is none", path=path, value=split,
            allowed=f"{shape.num_layers}, or an entry under servers",
        )  # fmt: skip
    check_device(scenario, shape, index, split, path)


def _split_path(scenario: Scenario, index: int) -> str:
    """Where the cut of a group stands: its own policy's split or the common one's; some policies have no such key."""
    group = scenario.fleet[index]
    policy = "policy" if group.policy is None else f"fleet[{index}].policy"
    return f"{policy}.split" if hasattr(scenario.policy_of(group), "split") else policy


def _check_saved(scenario: Scenario, source: ModelSource, policies: Iterable[Policy]) -> None:
    """Packed weights from a folder, where any shard would load them."""
    real = [policy for group, policy in zip(scenario.fleet, policies, strict=True) if group.compute == "real"]
    if scenario.weights is not None and real:
        splits = sorted({split for policy in real for split in policy.splits(source.shape.num_layers)})
        check_saved(scenario.weights, source, scenario.dtype, splits)


def _check_servers(scenario: Scenario, shape: ModelShape, policies: Iterable[Policy]) -> None:
    splits = {split for policy in policies for split in policy.splits(shape.num_layers)} - {shape.num_layers}
    _, back_law = weight_laws(scenario.weights, BITS[scenario.dtype])
    weights = server_weights_bytes(shape, splits, back_law) if splits else 0
    for index, servers in enumerate(scenario.servers):
        try:
            check_parallel(servers.server, shape)
        except ScenarioError as error:
            raise error.below(f"servers[{index}].server") from None
        free = free_bytes(servers.server)
        if weights > free:
            raise ScenarioError(
                f"{servers.server.name} has {format_si(free, 'B')} free, and the layers behind the cut take "
                f"{format_si(weights, 'B')}",
                path=f"servers[{index}].server",
                value=servers.server.name,
                allowed="a server with more memory, or a later cut",
            )
