"""Networks of a regular shape: `generate: {kind: ...}` becomes nodes and edges when the scenario is read.

Names carry their numbers with leading zeros, so that they sort as they count.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.base import Block, Distance, TimeNs, as_pydantic
from testbed.scenarios.problems import validate
from testbed.scenarios.topology import Cable, NodeKind, NodeName, Strand

Data = dict[str, Any]
_MOST = 1024  # nodes of one kind


class Shape(Block):
    """Base of the generators' configurations."""

    kind: str

    @abstractmethod
    def nodes(self) -> Iterator[Data]: ...

    @abstractmethod
    def edges(self) -> Iterator[Data]: ...


def _node(name: str, kind: NodeKind) -> Data:
    return {"name": name, "kind": kind}


def _edge(first: str, second: str, cable: Strand, **changes: Any) -> Data:
    return {"between": [first, second], **cable.model_dump(mode="json", exclude_unset=True), **changes}


def _names(stem: str, count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"{stem}-{number:0{width}d}" for number in range(count)]


class Star(Shape):
    """Cell sites around one edge site, each on a cable of its own."""

    kind: Literal["star"] = "star"
    leaves: int = Field(ge=1, le=_MOST)
    cable: Cable
    leaf_kind: NodeKind = "cell-site"
    hub_kind: NodeKind = "edge-site"

    def nodes(self) -> Iterator[Data]:
        yield _node("hub", self.hub_kind)
        yield from (_node(name, self.leaf_kind) for name in _names("leaf", self.leaves))

    def edges(self) -> Iterator[Data]:
        yield from (_edge(name, "hub", self.cable) for name in _names("leaf", self.leaves))


class Tree(Shape):
    """A balanced tree below a data centre: cell sites at the leaves, routers between; `cables` from the root down."""

    kind: Literal["tree"] = "tree"
    fan_out: int = Field(ge=1, le=32)
    cables: Annotated[list[Cable], Field(min_length=1, max_length=8)]  # one a level: their number is the depth

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if self.fan_out ** len(self.cables) > _MOST:
            allowed = f"at most {_MOST} leaves"
            told = f"{self.fan_out} ** {len(self.cables)} leaves"
            raise as_pydantic(ScenarioError("too large a tree", path="fan_out", value=told, allowed=allowed))
        return self

    def _level(self, depth: int) -> list[str]:
        """The names at a depth: each extends its parent's by its own number."""
        if depth == 0:
            return ["root"]
        width = len(str(self.fan_out - 1))
        stems = [name.removeprefix("root") for name in self._level(depth - 1)]
        kind = "cell" if depth == len(self.cables) else "router"
        return [
            f"{kind}-{stem.split('-', 1)[-1] + '.' if stem else ''}{child:0{width}d}"
            for stem in stems
            for child in range(self.fan_out)
        ]

    def nodes(self) -> Iterator[Data]:
        yield _node("root", "data-centre")
        for depth in range(1, len(self.cables) + 1):
            kind: NodeKind = "cell-site" if depth == len(self.cables) else "router"
            yield from (_node(name, kind) for name in self._level(depth))

    def edges(self) -> Iterator[Data]:
        for depth, cable in enumerate(self.cables, 1):
            parents = self._level(depth - 1)
            for place, name in enumerate(self._level(depth)):
                yield _edge(name, parents[place // self.fan_out], cable)


class MetroRing(Shape):
    """Access routers on a ring, cell sites behind each, an edge site at the first, and a data centre beyond it."""

    kind: Literal["metro-ring"] = "metro-ring"
    sites: int = Field(ge=3, le=64)
    cells_per_site: int = Field(default=1, ge=1, le=16)
    ring: Cable
    cell: Cable  # from a cell site to its router
    edge_site: Cable  # from the first router to the servers beside it
    uplink: Cable  # from the first router, and from the one opposite, to the data centre

    def _routers(self) -> list[str]:
        return _names("metro", self.sites)

    def _cells(self) -> list[tuple[str, str]]:
        """(cell site, its router)."""
        names = iter(_names("cell", self.sites * self.cells_per_site))
        return [(next(names), router) for router in self._routers() for _ in range(self.cells_per_site)]

    def nodes(self) -> Iterator[Data]:
        yield from (_node(name, "access-router") for name in self._routers())
        yield from (_node(name, "cell-site") for name, _ in self._cells())
        yield _node("edge", "edge-site")
        yield _node("cloud", "data-centre")

    def edges(self) -> Iterator[Data]:
        routers = self._routers()
        yield from (_edge(one, other, self.ring) for one, other in pairwise([*routers, routers[0]]))
        yield from (_edge(name, router, self.cell) for name, router in self._cells())
        yield _edge("edge", routers[0], self.edge_site)
        yield _edge("cloud", routers[0], self.uplink)
        yield _edge("cloud", routers[self.sites // 2], self.uplink)


class MultiRegion(Shape):
    """Regions of a provider: each has a data centre and edge sites around it; a backbone joins them."""

    kind: Literal["multi-region"] = "multi-region"
    regions: Annotated[list[NodeName], Field(min_length=2, max_length=64)]
    mesh: Literal["full", "ring"] = "full"
    delays: dict[str, TimeNs] = Field(default_factory=dict)  # one way, by pair: "eu-west us-east"
    distances: dict[str, Distance] = Field(default_factory=dict)  # of fibre, likewise
    backbone: Strand  # its own length is that of pairs without one
    sites_per_region: int = Field(default=1, ge=1, le=64)
    site: Cable  # from an edge site to its region
    data_centre: Cable  # from a region's router to its servers

    @model_validator(mode="after")
    def _lengths_are_of_pairs(self) -> Self:
        pairs = [" ".join(pair) for pair in self._pairs()]
        either_way = pairs + [" ".join(reversed(pair)) for pair in self._pairs()]
        for name in ("delays", "distances"):
            for key in getattr(self, name):
                if key not in either_way:
                    error = ScenarioError("no backbone cable joins these regions", path=f"{name}.{key}", value=key,
                                          allowed=pairs, nearest=nearest_name(key, pairs))  # fmt: skip
                    raise as_pydantic(error)
        bare = next((pair for pair in self._pairs() if not self._length(*pair)), None)
        if bare is not None and self.backbone.delay is None and self.backbone.distance is None:
            error = ScenarioError("no length for these regions", path="distances", value=" ".join(bare),
                                  allowed="an entry of delays or distances, or a delay of the backbone")  # fmt: skip
            raise as_pydantic(error)
        return self

    def _length(self, one: str, other: str) -> Data:
        """What is said of this pair."""
        for key in (f"{one} {other}", f"{other} {one}"):
            if key in self.delays:
                return {"delay": f"{self.delays[key]} ns", "distance": None}
            if key in self.distances:
                return {"delay": None, "distance": f"{self.distances[key]!r} m"}
        return {}

    def _pairs(self) -> list[tuple[str, str]]:
        if self.mesh == "full" or len(self.regions) == 2:  # noqa: PLR2004 - a ring of two is one cable
            return list(combinations(self.regions, 2))
        return list(pairwise([*self.regions, self.regions[0]]))

    def _sites(self) -> list[tuple[str, str]]:
        """(edge site, its region)."""
        return [(name, region) for region in self.regions for name in _names(f"{region}-site", self.sites_per_region)]

    def nodes(self) -> Iterator[Data]:
        for region in self.regions:
            yield _node(region, "region")
            yield _node(f"{region}-dc", "data-centre")
        yield from (_node(name, "edge-site") for name, _ in self._sites())

    def edges(self) -> Iterator[Data]:
        for one, other in self._pairs():
            yield _edge(one, other, self.backbone, **self._length(one, other))
        yield from (_edge(f"{region}-dc", region, self.data_centre) for region in self.regions)
        yield from (_edge(name, region, self.site) for name, region in self._sites())


SHAPES: Mapping[str, type[Shape]] = MappingProxyType(
    {"star": Star, "tree": Tree, "metro-ring": MetroRing, "multi-region": MultiRegion}
)


def generated(asked: object) -> Data:
    """Nodes and edges of a shape.

    Raises ScenarioError, located within what was asked for.
    """
    names = sorted(SHAPES)
    if not isinstance(asked, Mapping):
        raise ScenarioError("a mapping with a shape's kind is expected", value=asked, allowed=names)
    kind = asked.get("kind")
    if not isinstance(kind, str) or kind not in SHAPES:
        problem = "unknown shape" if "kind" in asked else "required key is missing"
        nearest = nearest_name(kind, names) if isinstance(kind, str) else None
        raise ScenarioError(problem, path="kind", value=kind, allowed=names, nearest=nearest)
    shape = validate(SHAPES[kind], dict(asked))
    return {"nodes": list(shape.nodes()), "edges": list(shape.edges())}
