"""A network behind the access links: typed nodes, edges with a port at either end, and how routes are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError

from testbed.core.errors import ScenarioError, nearest_name
from testbed.core.registry import LOSSES, QUEUES, RATES
from testbed.core.units import NS_PER_S
from testbed.scenarios.base import Block, Distance, PositiveTimeNs, TimeNs, as_pydantic
from testbed.scenarios.pieces import LossConfig, QueueConfig, RateConfig, piece
from testbed.scenarios.propagation import FIBRE_M_PER_S

NODE_KINDS = ("cell-site", "access-router", "router", "edge-site", "region", "data-centre")  # from the rim inwards
NodeKind = Literal["cell-site", "access-router", "router", "edge-site", "region", "data-centre"]
Way = tuple[str, str]  # one direction of an edge: from, to
NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


def _at(path: str, problem: str, **told: Any) -> PydanticCustomError:
    return as_pydantic(ScenarioError(problem, path=path, **told))


class Node(Block):
    """A place where edges meet, and where devices' access links and servers are attached."""

    name: NodeName
    kind: NodeKind = "router"
    source: str = ""


class Down(Block):
    """A time during which nothing passes an edge."""

    at: TimeNs
    until: TimeNs

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.until <= self.at:
            raise _at("until", "a failure must end after it begins", value=f"{self.until / NS_PER_S:g} s",
                      allowed=f"more than its `at` of {self.at / NS_PER_S:g} s")  # fmt: skip
        return self


class Cut(Down):
    """A failure said apart from its edge, such as one of a catalogue's topology."""

    between: Annotated[list[NodeName], Field(min_length=2, max_length=2)]


class Failures(Block):
    """Failures at random: times up and times down are exponential, with these means."""

    mean_up: PositiveTimeNs
    mean_down: PositiveTimeNs


class Strand(Block):
    """What an edge is made of, however long it is: both ways alike, each way its own port with its own queue."""

    rate: Annotated[SerializeAsAny[RateConfig], piece(RATES, short_kind="constant", short_key="rate")]
    delay: TimeNs | None = None  # one way
    distance: Distance | None = None  # of fibre, in place of a delay
    loss: Annotated[SerializeAsAny[LossConfig], piece(LOSSES, short_kind="bernoulli", short_key="p")] | None = None
    queue: Annotated[SerializeAsAny[QueueConfig], piece(QUEUES, short_kind="drop-tail", short_key="limit")] = Field(
        default="16 MB", validate_default=True
    )
    weight: int = Field(default=1, ge=0, le=2**32)
    down: list[Down] = Field(default_factory=list)
    failures: Failures | None = None
    source: str = ""

    @model_validator(mode="after")
    def _not_two_lengths(self) -> Self:
        if self.delay is not None and self.distance is not None:
            raise _at("distance", "an edge has a delay or a distance, not both", allowed="one of delay, distance")
        return self


class Cable(Strand):
    """A strand with its length."""

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.delay is None and self.distance is None:
            raise _at("delay", "required key is missing", allowed="a delay, or a distance")
        return self

    @property
    def propagation_ns(self) -> int:
        """One way."""
        if self.delay is not None:
            return self.delay
        assert self.distance is not None, "checked when the edge was read"
        return round(self.distance / FIBRE_M_PER_S * NS_PER_S)


class Edge(Cable):
    """A cable between two nodes; of a `one_way` edge the first is where it begins."""

    between: Annotated[list[NodeName], Field(min_length=2, max_length=2)]
    one_way: bool = False

    @property
    def ways(self) -> list[Way]:
        """(from, to) of each direction."""
        first, second = self.between
        return [(first, second)] if self.one_way else [(first, second), (second, first)]


class Topology(Block):
    """A graph that many devices share. Routes are the cheapest by `routing`; ties go to fewer hops, then by name."""

    name: NodeName = "topology"
    description: str = ""
    routing: Literal["delay", "hops", "weight"] = "delay"
    reroute_after: TimeNs = 0  # from a failure or a repair until routes follow
    nodes: list[Node] = Field(min_length=1)
    edges: list[Edge] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_a_graph(self) -> Self:
        names = [node.name for node in self.nodes]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise _at(f"nodes[{index}].name", "an earlier node has this name", value=name)
        known, seen = frozenset(names), set[Way]()
        for index, edge in enumerate(self.edges):
            self._check_edge(f"edges[{index}].between", edge, known, seen)
            seen.update(edge.ways)
        return self

    def _check_edge(self, path: str, edge: Edge, known: frozenset[str], seen: set[Way]) -> None:
        for end, name in enumerate(edge.between):
            if name not in known:
                raise unknown_node(f"{path}[{end}]", name, sorted(known))
        first, second = edge.between
        if first == second:
            raise _at(path, "an edge from a node to itself leads nowhere", value=first, allowed="two different nodes")
        if not seen.isdisjoint(edge.ways):
            raise _at(path, "an earlier edge joins these nodes", value=f"{first}, {second}",
                      allowed="one edge each way between two nodes")  # fmt: skip

    @property
    def node_names(self) -> list[str]:
        return sorted(node.name for node in self.nodes)


def unknown_node(path: str, name: str, known: Sequence[str]) -> PydanticCustomError:
    """A name that no node has."""
    return _at(path, "the topology has no such node", value=name, allowed=_listed(known),
               nearest=nearest_name(name, known))  # fmt: skip


_MOST_LISTED = 12


def _listed(names: Sequence[str]) -> list[str]:
    more = len(names) - _MOST_LISTED
    return [*names[:_MOST_LISTED], f"and {more} more"] if more > 0 else list(names)
