"""What the devices are asked: when requests come, of which kinds, which prompts, how many tokens to answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Discriminator, Field, SerializeAsAny, Tag, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.registry import ARRIVALS
from testbed.scenarios.base import Block, Probability, TimeNs, as_pydantic
from testbed.scenarios.laws import Duration, Length, NumTokens
from testbed.scenarios.pieces import PieceConfig, piece
from testbed.scenarios.prompts import Prompts

_SUM_TOLERANCE = 1e-9


class ArrivalConfig(PieceConfig):
    """When the requests of a group come: base of every arrival law's own configuration."""

    @property
    def sets_lengths(self) -> bool:
        """Whether the law says how long requests are, and so leaves no room for turns of a session."""
        return False


Arrivals = Annotated[SerializeAsAny[ArrivalConfig], piece(ARRIVALS)]


class Session(Block):
    """Several turns, each asked some time after the answer to the one before, with all of it as its history."""

    turns: Length
    think: Duration  # from an answer's end to the next turn
    max_tokens: NumTokens | None = None  # turns whose history, prompt and answer would be more are not asked


class SharePoint(Block):
    """A kind's share of the requests at an instant; between two points it changes evenly."""

    at: TimeNs
    share: Probability


Share = Annotated[
    Annotated[Probability, Tag("share")] | Annotated[list[SharePoint], Field(min_length=1), Tag("points")],
    Discriminator(lambda value: "points" if isinstance(value, list) else "share"),
]


class RequestKind(Block):
    """Requests of one kind, such as text, code or audio. What it doesn't say is as in the workload."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    share: Share
    prompts: Prompts | None = None
    output_tokens: Length | None = None
    session: Session | None = None

    @model_validator(mode="after")
    def _points_in_order(self) -> Self:
        times = [time_ns for time_ns, _ in self.points]
        for index in range(1, len(times)):
            if times[index] <= times[index - 1]:
                path = f"share[{index}].at"
                raise as_pydantic(ScenarioError("not after the point before", path=path, value=f"{times[index]} ns"))
        return self

    @property
    def points(self) -> list[tuple[int, float]]:
        """(instant in ns, share); before the first and after the last the share stays."""
        if isinstance(self.share, list):
            return [(point.at, point.share) for point in self.share]
        return [(0, self.share)]

    def share_at(self, time_ns: int) -> float:
        """Linear between the points."""
        points = self.points
        for (from_ns, before), (until_ns, after) in pairwise(points):
            if from_ns <= time_ns < until_ns:
                return before + (after - before) * ((time_ns - from_ns) / (until_ns - from_ns))
        return points[0][1] if time_ns < points[0][0] else points[-1][1]


class Workload(Block):
    arrivals: Arrivals
    prompts: Prompts | None = None  # of kinds that have none of their own; so are the next two
    output_tokens: Length | None = None  # the most a request may generate
    session: Session | None = None  # None: every request stands alone
    kinds: Annotated[list[RequestKind], Field(min_length=1)] | None = None  # None: all requests are of one kind
    ignore_eos: bool = False  # generate on to the full length

    @model_validator(mode="after")
    def _complete(self) -> Self:
        described: Sequence[RequestKind | Workload] = self.kinds or [self]
        for place, kind in enumerate(described):
            path = f"kinds[{place}]." if self.kinds else ""
            for key in ("prompts", "output_tokens"):
                if getattr(kind, key) is None and getattr(self, key) is None:
                    raise as_pydantic(ScenarioError("required key is missing", path=path + key))
            if self.arrivals.sets_lengths and (kind.session or self.session):
                problem = f"a {self.arrivals.kind} that sets the lengths leaves no room for turns"
                path = f"{path}session" if kind.session else "session"
                raise as_pydantic(ScenarioError(problem, path=path))
        _check_shares(self.kinds or [])
        return self

    @property
    def request_kinds(self) -> Sequence[RequestKind]:
        """All kinds, with everything they need; one without a name where the workload lists none."""
        kinds = self.kinds or [RequestKind.model_construct(name="", share=1.0)]
        keys = ("prompts", "output_tokens", "session")
        return [
            kind.model_copy(update={key: getattr(self, key) for key in keys if getattr(kind, key, None) is None})
            for kind in kinds
        ]


def _check_shares(kinds: Sequence[RequestKind]) -> None:
    """Shares are linear between all points: where they add up to 1 at each, they do everywhere."""
    names = [kind.name for kind in kinds]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise as_pydantic(ScenarioError("an earlier entry has this name", path=f"kinds[{index}].name", value=name))
    for time_ns in sorted({time_ns for kind in kinds for time_ns, _ in kind.points}):
        total = sum(kind.share_at(time_ns) for kind in kinds)
        if abs(total - 1) > _SUM_TOLERANCE:
            when = f" at {time_ns / 1e9:g} s" if time_ns else ""
            problem = f"the shares don't add up to 1{when}"
            raise as_pydantic(ScenarioError(problem, path="kinds", value=round(total, 9)))
