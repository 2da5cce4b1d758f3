"""What every block of a scenario file shares: frozen, no unknown keys, quantities with units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from testbed.core.errors import ScenarioError
from testbed.core.units import UNITS, parse_quantity, seconds_to_ns


class Block(BaseModel):
    """A mapping in a YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def as_pydantic(error: ScenarioError) -> PydanticCustomError:
    """Carry a ScenarioError through pydantic, which adds the YAML path."""
    return PydanticCustomError("scenario", "{problem}", {"problem": error.problem, "error": error})


def _reader(
    quantity: str, convert: Callable[[float], Any], at_least: float | None, above: float | None, at_most: float | None
) -> BeforeValidator:
    def read(value: object) -> Any:
        try:
            number = parse_quantity(value, quantity)
        except ScenarioError as error:
            raise as_pydantic(error) from None
        if at_least is not None and number < at_least:
            raise as_pydantic(ScenarioError(f"{quantity} too small", value=value, allowed=f"at least {at_least:g}"))
        if above is not None and number <= above:
            raise as_pydantic(ScenarioError(f"{quantity} too small", value=value, allowed=f"more than {above:g}"))
        if at_most is not None and number > at_most:
            raise as_pydantic(ScenarioError(f"{quantity} too large", value=value, allowed=f"at most {at_most:g}"))
        return convert(number)

    return BeforeValidator(read)


def _schema(quantity: str) -> WithJsonSchema:
    units = ", ".join(unit for unit in UNITS[quantity] if unit)
    kinds = ["string", "number"] if quantity == "ratio" else ["string"]
    return WithJsonSchema({"type": kinds, "description": f"a {quantity}: a number with one of {units}"})


def _written(unit: str) -> PlainSerializer:
    """Write the value back with its unit, exactly, so that a resolved scenario reads as itself."""
    return PlainSerializer(lambda value: f"{value!r} {unit}".rstrip(), return_type=str, when_used="json")


def _identity(number: float) -> float:
    return number


# In files a text with a unit; inside, the base unit named by each type.
TimeNs = Annotated[int, _reader("time", seconds_to_ns, 0, None, None), _schema("time"), _written("ns")]
PositiveTimeNs = Annotated[int, _reader("time", seconds_to_ns, None, 0, None), _schema("time"), _written("ns")]
SizeBytes = Annotated[int, _reader("size", round, 0, None, None), _schema("size"), _written("B")]
PositiveSizeBytes = Annotated[int, _reader("size", round, None, 0, None), _schema("size"), _written("B")]
BitRate = Annotated[int, _reader("bitrate", round, None, 0, None), _schema("bitrate"), _written("bit/s")]
Bandwidth = Annotated[float, _reader("bandwidth", _identity, None, 0, None), _schema("bandwidth"), _written("B/s")]
ComputeRate = Annotated[float, _reader("compute", _identity, None, 0, None), _schema("compute"), _written("FLOP/s")]
Frequency = Annotated[float, _reader("frequency", _identity, None, 0, None), _schema("frequency"), _written("/s")]
Power = Annotated[float, _reader("power", _identity, 0, None, None), _schema("power"), _written("W")]
Probability = Annotated[float, _reader("ratio", _identity, 0, None, 1), _schema("ratio")]
LossProbability = Annotated[float, _reader("ratio", _identity, 0, None, 0.999), _schema("ratio")]
