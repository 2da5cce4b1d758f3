"""How long a bit is under way: given, or from the length of the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from testbed.core.errors import ScenarioError
from testbed.core.units import ALLOWED, NS_PER_S
from testbed.scenarios.base import Block, Distance, TimeNs, as_pydantic
from testbed.scenarios.problems import validate

LIGHT_M_PER_S = 299_792_458
# Standard single-mode fibre at 1550 nm has a group index of 1.4682 (Corning SMF-28 Ultra, data sheet).
FIBRE_M_PER_S = LIGHT_M_PER_S / 1.4682
SPEED_M_PER_S = {"air": LIGHT_M_PER_S, "fibre": FIBRE_M_PER_S}


class Way(Block):
    """The distance between the ends; cables are `stretch` times as long."""

    distance: Distance
    medium: Literal["fibre", "air"] = "fibre"
    stretch: float = Field(default=1.0, ge=1, le=100)

    @property
    def delay_ns(self) -> int:
        return round(self.distance * self.stretch / SPEED_M_PER_S[self.medium] * NS_PER_S)


def _by_distance(value: object) -> Any:
    if not isinstance(value, Mapping):
        return value
    try:
        return f"{validate(Way, dict(value)).delay_ns} ns"
    except ScenarioError as error:
        raise as_pydantic(error) from None


_SCHEMA = {"anyOf": [{"type": ["string", "number"], "description": ALLOWED["time"]}, Way.model_json_schema()]}

PropagationNs = Annotated[TimeNs, BeforeValidator(_by_distance), WithJsonSchema(_SCHEMA)]
