"""Which scenarios the cohort engine can run exactly; for every other one, why not."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.core.plan import Decision
from testbed.core.registry import POLICIES
from testbed.scenarios.profiles import LinkProfile
from testbed.scenarios.schema import Group, Scenario


def reasons(scenario: Scenario, num_layers: int) -> list[str]:
    """Why every request needs a process of its own; empty where none does."""
    return list(dict.fromkeys(_reasons(scenario, num_layers)))


def fixed_decision(scenario: Scenario, group: Group, num_layers: int) -> Decision | None:
    """What the group's policy decides for every request, whatever it observes; None where it looks."""
    config = scenario.policy_of(group)
    fixed = getattr(POLICIES.load(config.kind)(config), "fixed", None)
    return None if fixed is None else fixed(num_layers)


def _reasons(scenario: Scenario, num_layers: int) -> Iterator[str]:
    if scenario.topology is not None:
        yield "messages pass through a topology"
    if scenario.seal != "none" or scenario.alters_messages:
        yield "messages are sealed or altered"
    if scenario.stop_at is not None:
        yield "the run stops before its requests end"
    if scenario.record.spans:
        yield "every span is recorded"
    for profile in [*(group.device for group in scenario.fleet), *(servers.server for servers in scenario.servers)]:
        if profile.profile_table is not None:
            yield "times come from a measured table"
        if profile.host_time:
            yield "a host bounds the time of layers"
    yield from _server_reasons(scenario)
    for group in scenario.fleet:
        yield from _group_reasons(scenario, group, num_layers)


def _server_reasons(scenario: Scenario) -> Iterator[str]:
    if scenario.router.kind != "least-loaded":
        yield f"router {scenario.router.kind}"
    for servers in scenario.servers:
        if servers.autoscale is not None:
            yield "servers are started and taken away"
        if servers.can_fail:
            yield "servers fail"
        if servers.scheduler.kind != "fifo":
            yield f"scheduler {servers.scheduler.kind}"


def _group_reasons(scenario: Scenario, group: Group, num_layers: int) -> Iterator[str]:
    if group.compute == "real":
        yield "real devices"
    yield from (f"devices with {part}" for part in group.changing)
    if group.vary is not None:
        yield "devices of a group differ"
    if group.kv_claim != "full":
        yield "devices claim memory as it is used"
    if group.cell is not None:
        yield "devices share a cell"
    decision = fixed_decision(scenario, group, num_layers)
    if decision is None:
        yield f"policy {scenario.policy_of(group).kind} looks before it decides"
        return
    if decision.mode != "stateful":
        yield f"mode {decision.mode}"
    if group.link.transport.kind == "colocated" or decision.split == num_layers:
        return
    if decision.split == 0:
        yield "a server streams tokens down a link"
    yield from _link_reasons(group.link)


def _link_reasons(link: LinkProfile) -> Iterator[str]:
    if {link.rate_up.kind, link.rate_down.kind} != {"constant"}:
        yield "a link's rate changes"
    if link.loss.kind != "bernoulli":
        yield f"loss {link.loss.kind}"
    if link.queue.kind != "drop-tail":
        yield f"queue {link.queue.kind}"
    if link.transport.kind != "selective-repeat":
        yield f"transport {link.transport.kind}"
    elif getattr(link.transport, "patience", None) is not None:
        yield "a link loses patience"
    if link.resolution == "packets":
        yield "links are computed packet by packet"
    if link.duplicate or link.outages or link.radio is not None:
        yield "packets arrive twice, links fail or radios sleep"
    jitter = link.jitter
    if jitter is not None and (jitter.per == "packet" or jitter.correlation_time or not jitter.reorder):
        yield "jitter of each packet, correlated in time, or in order"
