"""Devices that can never hold what they are to run: refused before anything runs, with what would fit."""

from __future__ import annotations

from testbed.actors.kv import KVLaw, kv_laws
from testbed.actors.memory import edge_demand, free_bytes, largest_split
from testbed.actors.weight_plan import weight_laws
from testbed.core.errors import ScenarioError
from testbed.core.units import format_si
from testbed.models.shape import ModelShape
from testbed.scenarios.levels import RandomLevels, Steps
from testbed.scenarios.profiles import DeviceProfile
from testbed.scenarios.schema import Group, Scenario
from testbed.sim.measured import BITS

_WEIGHT_BITS = (16, 8, 6, 5, 4, 3, 2)


def check_device(scenario: Scenario, shape: ModelShape, index: int, split: int, path: str) -> None:
    """One token must fit beside what other programs take at the least; longer requests are outcomes of the run."""
    group, bits = scenario.fleet[index], BITS[scenario.dtype]
    device = _smallest(group)
    (weights, _), (kv, _) = weight_laws(scenario.weights, bits), kv_laws(scenario.kv, bits)
    demand, free = edge_demand(shape, split, 1, weights, kv).total_bytes, free_bytes(device)
    if demand and not free:
        raise ScenarioError(
            f"group {group.name}: the reserved memory of a {group.device.name} leaves none for {split} layers",
            path=path,
            value=split,
            allowed="0",
        )
    if demand > free:
        most = largest_split(device, shape, 1, weights, kv)
        raise ScenarioError(
            f"group {group.name}: a {group.device.name} has {format_si(free, 'B')} free, and the front of {split} "
            f"layers takes {format_si(demand, 'B')}",
            path=path,
            value=split,
            allowed=(f"0 to {most}" if most else "0") + _fitting_bits(shape, split, kv, free, bits),
        )


def _smallest(group: Group) -> DeviceProfile:
    """The group's device with the least memory, when its other programs take the least of it."""
    memory = group.device.memory
    if group.vary is not None and group.vary.memory is not None:
        memory = min(choice.value for choice in group.vary.memory)
    others = _least_others(group)
    return group.device.model_copy(update={"memory": max(1, memory - others)})


def _least_others(group: Group) -> int:
    if group.background is None or group.background.memory is None:
        return 0
    levels = group.background.memory
    if isinstance(levels, Steps):
        return min(step.value for step in levels.steps)
    if isinstance(levels, RandomLevels):
        return min(state.value for state in levels.states)
    return 0  # a trace may say anything later


def _fitting_bits(shape: ModelShape, split: int, kv: KVLaw, free: int, bits: int) -> str:
    """With how many bits a weight the front would fit, if with any fewer than now."""
    fewer = (width for width in _WEIGHT_BITS if width < bits)
    fitting = next((width for width in fewer if edge_demand(shape, split, 1, width, kv).total_bytes <= free), None)
    return "" if fitting is None else f", or weights of at most {fitting} bits"
