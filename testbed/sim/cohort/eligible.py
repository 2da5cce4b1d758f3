"""Which scenarios the cohort engine can run exactly; for every other one, why not.

A key of the scenario that is not known here counts as a reason as soon as it is not at its default: what one engine
learns, the other never passes over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from testbed.actors.payload_law import PayloadLaw
from testbed.core.plan import Decision
from testbed.core.registry import POLICIES
from testbed.scenarios.base import Block
from testbed.scenarios.profiles import LinkProfile
from testbed.scenarios.schema import Group, Scenario, Servers
from testbed.sim.request_table import RequestTable

_NEVER = 1e-12
MANY_PASSES = 50_000  # with fewer, loading compiled code takes longer than it saves

# What it repeats, or what both engines take from the same place.
_SCENARIO = {
    *("name", "description", "model", "tokenizer", "dtype", "payload_law", "weights", "calibration", "kv", "seed"),
    *("policy", "fleet", "servers", "router", "workload", "sampling", "slo", "execution", "record"),
}
_GROUP = {"name", "device", "count", "compute", "link", "policy", "workload"}
_SERVERS = {
    *("name", "server", "count", "max_batch", "max_prefill_tokens", "chunk_tokens", "priority", "max_resident"),
    "scheduler",
}
_PROCESSOR = {
    *("name", "description", "sources", "memory", "memory_bandwidth", "compute", "kernel_overhead", "host_time"),
    "overlap",
    *("idle_power", "active_power", "aes_gcm_rate", "chacha20_rate", "reserved_memory", "price_per_hour"),
    *("tensor_parallel", "interconnect_bandwidth", "interconnect_latency"),
    *("transmit_power", "receive_power", "sleep_power", "battery_capacity", "thermal_resistance", "heat_capacity"),
    *("throttle", "shutdown_temperature", "restart_temperature"),  # which count where a group asks for heat or battery
}


def choose(
    scenario: Scenario, num_layers: int, law: PayloadLaw | None, requests: RequestTable
) -> tuple[str, list[str]]:
    """The engine's name, and why the other does not run it."""
    asked, why_not = scenario.execution.engine, reasons(scenario, num_layers, law)
    if asked == "requests":
        return asked, ["asked for"]
    if asked == "auto" and int(requests.max_output_tokens.sum()) < MANY_PASSES:
        return "requests", ["small"]
    return ("requests", why_not) if why_not else ("cohorts", [])


def reasons(scenario: Scenario, num_layers: int, law: PayloadLaw | None = None) -> list[str]:
    """Why every request needs a process of its own; empty where none does."""
    return list(dict.fromkeys(_reasons(scenario, num_layers, law)))


def fixed_decision(scenario: Scenario, group: Group, num_layers: int) -> Decision | None:
    """What the group's policy decides for every request, whatever it observes; None where it looks."""
    config = scenario.policy_of(group)
    fixed = getattr(POLICIES.load(config.kind)(config), "fixed", None)
    return None if fixed is None else fixed(num_layers)


def _reasons(scenario: Scenario, num_layers: int, law: PayloadLaw | None) -> Iterator[str]:
    yield from _unknown(scenario, _SCENARIO, "")
    if scenario.record.spans:
        yield "every span is recorded (record.spans)"
    if scenario.router.kind != "least-loaded":
        yield f"router {scenario.router.kind}"
    for servers in scenario.servers:
        yield from _server_reasons(servers)
    laws = {} if law is None else law.by_cut()
    for group in scenario.fleet:
        yield from _group_reasons(scenario, group, num_layers)
        decision = fixed_decision(scenario, group, num_layers)
        if decision is not None and (decision.codec, decision.split) in laws:
            yield f"sizes of messages of codec {decision.codec} are drawn one by one"


def _unknown(block: Block, known: Collection[str], path: str) -> Iterator[str]:
    for name, field in type(block).model_fields.items():
        if name not in known and getattr(block, name) != field.get_default(call_default_factory=True):
            yield f"{path}{name}"


def _server_reasons(servers: Servers) -> Iterator[str]:
    yield from _unknown(servers, _SERVERS, "servers.")
    if servers.scheduler.kind != "fifo":
        yield f"scheduler {servers.scheduler.kind}"
    yield from _unknown(servers.server, _PROCESSOR, "servers.server.")


def _group_reasons(scenario: Scenario, group: Group, num_layers: int) -> Iterator[str]:
    yield from _unknown(group, _GROUP, "fleet.")
    if group.compute == "real":
        yield "real devices"
    yield from _unknown(group.device, _PROCESSOR, "fleet.device.")
    decision = fixed_decision(scenario, group, num_layers)
    if decision is None:
        yield f"policy {scenario.policy_of(group).kind} looks before it decides"
        return
    if decision.mode != "stateful":
        yield f"mode {decision.mode}"
    if group.link.transport.kind == "colocated" or decision.split == num_layers:
        return
    yield from _link_reasons(group.link)
    if decision.split == 0 and _gives_up(group.link):
        yield "a server streams tokens down a link that may give them up"


def _gives_up(link: LinkProfile) -> bool:
    """Whether a token may be lost for good: likelier than once in 10^12."""
    p_loss = getattr(link.loss, "p", 0.0)
    return bool(p_loss ** (getattr(link.transport, "max_retransmissions", 0) + 1) > _NEVER)


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
    if link.duplicate or link.corrupt or link.outages or link.radio is not None:
        yield "packets arrive twice or wrong, links fail or radios sleep"
    jitter = link.jitter
    if jitter is not None and (jitter.per == "packet" or jitter.correlation_time or not jitter.reorder):
        yield "jitter of each packet, correlated in time, or in order"
