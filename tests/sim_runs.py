"""Small scenarios built in code and run to their events: a model of four layers, no weights, no files."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from testbed.core.events import Event, RequestEnded, SpanEnded, TokenDelivered
from testbed.models.families import shape_of
from testbed.models.source import ModelSource
from testbed.scenarios.schema import Scenario
from testbed.sim.requests import Request, RequestTable, Workloads
from testbed.sim.simulate import simulate
from testbed.sim.world import World

MS = 1_000_000
S = 1_000_000_000

TINY_CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "vocab_size": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
TINY = shape_of("tiny", TINY_CONFIG)
TINY_SOURCE = ModelSource(
    name="tiny",
    folder=None,
    config=MappingProxyType({}),
    shape=TINY,
    has_weights=False,
    tokenizer_file=None,
    stop_token_ids=(),
)


def device(**changes: object) -> dict[str, object]:
    """A device with room for everything; 0.2 ms a kernel and about as much for the weights of a layer."""
    processor = {"memory": "1 GB", "memory_bandwidth": "50 MB/s", "compute": "1 GFLOP/s", "kernel_overhead": "200 us"}
    power = {"idle_power": "2 W", "active_power": "6 W", "transmit_power": "1 W", "receive_power": "0.5 W"}
    return {"name": "board", "reserved_memory": "1 MB", **processor, **power, **changes}


def server(**changes: object) -> dict[str, object]:
    processor = {"memory": "1 GB", "memory_bandwidth": "1 GB/s", "compute": "1 TFLOP/s", "kernel_overhead": "50 us"}
    power = {"idle_power": "60 W", "active_power": "300 W"}
    return {"name": "worker", "reserved_memory": "1 MB", **processor, **power, **changes}


def link(**changes: object) -> dict[str, object]:
    """No loss, no jitter: 8 Mbit/s up, so that a byte takes a microsecond, and 16 Mbit/s down."""
    return {"name": "wire", "rate_up": "8 Mbit/s", "rate_down": "16 Mbit/s", "propagation_delay": "10 ms", **changes}


def group(name: str = "boards", **changes: object) -> dict[str, object]:
    return {"name": name, "device": device(), "count": 1, "link": link(), **changes}


def workload(**changes: object) -> dict[str, object]:
    """One request of 5 tokens at 3 ms, answered with 4."""
    return {
        "arrivals": {"kind": "times", "times": ["3 ms"]},
        "prompts": {"kind": "random", "length": {"law": "fixed", "value": 5}},
        "output_tokens": {"law": "fixed", "value": 4},
        **changes,
    }


def scenario(**changes: object) -> Scenario:
    """One device, one server, a static cut after layer 2."""
    data: dict[str, Any] = {
        "name": "test",
        "model": "tiny",
        "seed": 1,
        "policy": {"kind": "static", "split": 2, "codec": "int8"},
        "fleet": [group()],
        "servers": [{"name": "cloud", "server": server()}],
        "workload": workload(),
        **changes,
    }
    return Scenario.model_validate(data)


def requests_of(built: Scenario, source: ModelSource = TINY_SOURCE) -> list[Request]:
    return list(table_of(built, source))


def table_of(built: Scenario, source: ModelSource = TINY_SOURCE) -> RequestTable:
    def no_tokenizer() -> Any:
        raise AssertionError("these prompts need no tokenizer")

    return Workloads(built, vocab_size=source.shape.vocab_size, tokenizer=no_tokenizer).requests()


def run_world(built: Scenario, source: ModelSource = TINY_SOURCE) -> tuple[World, list[Event]]:
    """The world at its end, and every event in the order of emission."""
    events: list[Event] = []
    world = World(built, source, executor=None, emit=events.append)
    simulate(world, table_of(built, source), stop_at_ns=built.stop_at)
    return world, events


def run_events(built: Scenario) -> list[Event]:
    return run_world(built)[1]


def of_kind(events: list[Event], kind: type, **fields: object) -> list[Any]:
    """The events of one class whose fields have these values."""
    return [
        event
        for event in events
        if type(event) is kind and all(getattr(event, name) == value for name, value in fields.items())
    ]


def spans_of(events: list[Event], request: int = 0) -> list[tuple[int, str, int, int]]:
    """(step, hop, start, end) of one request, in order."""
    found = of_kind(events, SpanEnded, request=request)
    return [(span.step, span.hop.value, span.start_ns, span.end_ns) for span in found]


def token_times(events: list[Event], request: int = 0) -> list[int]:
    return [event.time_ns for event in of_kind(events, TokenDelivered, request=request)]


def ends(events: list[Event]) -> Mapping[int, RequestEnded]:
    return {event.request: event for event in events if isinstance(event, RequestEnded)}
