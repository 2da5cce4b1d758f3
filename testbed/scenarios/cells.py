"""Cells: media whose air time the links of several devices share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny
from pydantic_core import PydanticCustomError

from testbed.core.errors import ScenarioError, nearest_name
from testbed.core.registry import DISCIPLINES
from testbed.scenarios.base import Block, LossProbability, as_pydantic
from testbed.scenarios.pieces import DisciplineConfig, piece

Discipline = Annotated[SerializeAsAny[DisciplineConfig], piece(DISCIPLINES)]


class Cells(Block):
    """Equal cells, or access points. The devices of a group that names them are dealt to them in turn."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    count: int = Field(default=1, ge=1)
    discipline: Discipline = Field(default="processor-sharing", validate_default=True)
    duplex: Literal["full", "half"] = "full"  # half: up and down share the air too, as on Wi-Fi
    collision: LossProbability = 0.0  # of a transmission, by each other link with something to send at its end

    def names(self) -> list[str]:
        """Of each cell: the common name, with a number where there are several."""
        return [self.name] if self.count == 1 else [f"{self.name}-{number}" for number in range(self.count)]


def check_cells(cells: Sequence[Cells]) -> None:
    """Raise where two cells have one name."""
    taken: set[str] = set()
    for index, group in enumerate(cells):
        for name in group.names():
            if name in taken:
                raise _at(f"cells[{index}].name", "an earlier cell has this name", value=name)
            taken.add(name)


def check_membership(path: str, cells: Sequence[Cells], name: str | None, weight: int | None, queue: str) -> None:
    """Raise where a group, at this YAML path, names no cell that is there, or has what counts nowhere in it."""
    names = [group.name for group in cells]
    if name is not None and name not in names:
        raise _at(f"{path}.cell", "there is no such cell", value=name, allowed=names or "an entry under cells, first",
                  nearest=nearest_name(name, names))  # fmt: skip
    if name is not None and queue != "drop-tail":
        raise _at(f"{path}.link.queue", "links in a cell have drop-tail queues", value=queue, allowed="drop-tail")
    if weight is None:
        return
    discipline = None if name is None else cells[names.index(name)].discipline
    if discipline is None or not discipline.takes_weights:
        problem = "only a cell has weights" if discipline is None else f"{discipline.kind} takes no weights"
        raise _at(f"{path}.weight", problem, value=weight, allowed="in a cell with a discipline that takes weights")


def _at(path: str, problem: str, **told: Any) -> PydanticCustomError:
    return as_pydantic(ScenarioError(problem, path=path, **told))
