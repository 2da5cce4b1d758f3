"""What every block of a scenario file shares: frozen, no unknown keys, quantities with units."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from testbed.core.errors import ScenarioError
from testbed.core.registry import Registry
from testbed.core.units import ALLOWED, NAMES, NS_PER_S, UNITS, parse_exactly

# Virtual time and sizes stay far from the ends of 64-bit integers, sums of many of them too.
_MOST_DAYS = 36_500
_MOST_BYTES = 10**18
_MOST_BPS = 10**18
_MOST_DECIBELS = 300
_LEAST_DEGREES, _MOST_DEGREES = -100, 1000


class Block(BaseModel):
    """A mapping in a YAML file. Strict: `true` is no number and "3" is a text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


def as_pydantic(error: ScenarioError) -> PydanticCustomError:
    """Carry a ScenarioError through pydantic, which adds the YAML path."""
    return PydanticCustomError("scenario", "{problem}", {"problem": error.problem, "error": error})


def registered(registry: Registry) -> BeforeValidator:
    """Refuse a name that has no row, with the nearest one."""

    def check(value: object) -> object:
        if isinstance(value, str):
            try:
                registry.check(value)
            except ScenarioError as error:
                raise as_pydantic(error) from None
        return value

    return BeforeValidator(check)


def _nanoseconds(seconds: Fraction) -> int:
    return round(seconds * NS_PER_S)


def _reader(
    quantity: str,
    convert: Callable[[Fraction], Any],
    *,
    at_least: tuple[float, str] | None = None,
    above_zero: bool = False,
    at_most: tuple[float, str] | None = None,
) -> BeforeValidator:
    """Text to a number in the type's own unit; a limit is that number and how a user would write it."""

    def read(value: object) -> Any:
        try:
            return within(convert(parse_exactly(value, quantity)), value)
        except OverflowError:
            raise as_pydantic(ScenarioError(f"{NAMES[quantity]} too large", value=value)) from None
        except ScenarioError as error:
            raise as_pydantic(error) from None

    def within(number: Any, value: object) -> Any:
        name = NAMES[quantity]
        if above_zero and number <= 0:
            raise ScenarioError(f"{name} too small", value=value, allowed="more than 0")
        if at_least is not None and number < at_least[0]:
            raise ScenarioError(f"{name} too small", value=value, allowed=f"at least {at_least[1]}")
        if at_most is not None and number > at_most[0]:
            raise ScenarioError(f"{name} too large", value=value, allowed=f"at most {at_most[1]}")
        return number

    return BeforeValidator(read)


def _schema(quantity: str) -> WithJsonSchema:
    units = "|".join(unit.replace("/", r"\/") for unit in sorted(UNITS[quantity], key=len, reverse=True) if unit)
    number = r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?"
    text = {"type": "string", "pattern": rf"^\s*{number}\s*({units})\s*$"}
    bare = {"type": "number"} if quantity == "ratio" else {"const": 0}
    return WithJsonSchema({"anyOf": [text, bare], "description": f"a {NAMES[quantity]}: {ALLOWED[quantity]}"})


def _written(unit: str) -> PlainSerializer:
    """Write the value back with its unit, exactly, so that a resolved scenario reads as itself."""
    return PlainSerializer(lambda value: f"{value!r} {unit}".rstrip(), return_type=str, when_used="json")


_ZERO = (0.0, "0")
_MOST_TIME = (_MOST_DAYS * 86_400 * NS_PER_S, f"{_MOST_DAYS} d")
_MOST_SIZE = (_MOST_BYTES, f"{_MOST_BYTES // 10**15} PB")
_MOST_RATE = (_MOST_BPS, f"{_MOST_BPS // 10**15} Pbit/s")
_MOST_RATIO = (_MOST_DECIBELS, f"{_MOST_DECIBELS} dB")
_MOST_ENERGY = (7.2e6, "2 kWh")  # as 64 bits hold it in picojoules
_LEAST_RATE = (1e-9, "1e-9 /s")
_Time = (_schema("time"), _written("ns"))
_Size = (_schema("size"), _written("B"))

FileName = Annotated[str, Field(min_length=1)]  # a relative one stands beside the file that names it

RANDOM = -1  # in place of a time


def _time_or_random(value: object) -> int:
    if value == "random":
        return RANDOM
    allowed = "a time such as 15 s, or random"
    try:
        time_ns = _nanoseconds(parse_exactly(value, "time"))
    except ScenarioError as error:
        raise as_pydantic(ScenarioError(error.problem, value=value, allowed=allowed, nearest=error.nearest)) from None
    if not 0 <= time_ns <= _MOST_TIME[0]:
        raise as_pydantic(
            ScenarioError(f"time too {'large' if time_ns > 0 else 'small'}", value=value, allowed=allowed)
        )
    return time_ns


TimeOrRandom = Annotated[
    int,
    BeforeValidator(_time_or_random),
    PlainSerializer(
        lambda time_ns: "random" if time_ns == RANDOM else f"{time_ns} ns", return_type=str, when_used="json"
    ),
    WithJsonSchema({"type": ["string", "number"], "description": "a time such as 15 s, or random"}),
]

# In files a text with a unit; inside, the base unit named by each type.
TimeNs = Annotated[int, _reader("time", _nanoseconds, at_least=_ZERO, at_most=_MOST_TIME), *_Time]
PositiveTimeNs = Annotated[int, _reader("time", _nanoseconds, above_zero=True, at_most=_MOST_TIME), *_Time]
SizeBytes = Annotated[int, _reader("size", round, at_least=_ZERO, at_most=_MOST_SIZE), *_Size]
PositiveSizeBytes = Annotated[int, _reader("size", round, above_zero=True, at_most=_MOST_SIZE), *_Size]
BitRate = Annotated[
    int, _reader("bitrate", round, above_zero=True, at_most=_MOST_RATE), _schema("bitrate"), _written("bit/s")
]
BitRateOrZero = Annotated[
    int, _reader("bitrate", round, at_least=_ZERO, at_most=_MOST_RATE), _schema("bitrate"), _written("bit/s")
]
Bandwidth = Annotated[float, _reader("bandwidth", float, above_zero=True), _schema("bandwidth"), _written("B/s")]
ComputeRate = Annotated[float, _reader("compute", float, above_zero=True), _schema("compute"), _written("FLOP/s")]
Frequency = Annotated[
    float, _reader("frequency", float, above_zero=True, at_least=_LEAST_RATE), _schema("frequency"), _written("/s")
]
FrequencyOrZero = Annotated[float, _reader("frequency", float, at_least=_ZERO), _schema("frequency"), _written("/s")]
Distance = Annotated[float, _reader("distance", float, at_least=_ZERO), _schema("distance"), _written("m")]
PositiveDistance = Annotated[float, _reader("distance", float, above_zero=True), _schema("distance"), _written("m")]
Speed = Annotated[float, _reader("speed", float, above_zero=True), _schema("speed"), _written("m/s")]
Spectrum = Annotated[float, _reader("spectrum", float, above_zero=True), _schema("spectrum"), _written("Hz")]
Decibels = Annotated[
    float,
    _reader("decibels", float, at_least=(-_MOST_DECIBELS, f"-{_MOST_DECIBELS} dB"), at_most=_MOST_RATIO),
    _schema("decibels"),
    _written("dB"),
]
PositiveDecibels = Annotated[
    float, _reader("decibels", float, at_least=_ZERO, at_most=_MOST_RATIO), _schema("decibels"), _written("dB")
]
Level = Annotated[
    float,
    _reader("level", float, at_least=(-_MOST_DECIBELS, f"-{_MOST_DECIBELS} dBm"),
            at_most=(_MOST_DECIBELS, f"{_MOST_DECIBELS} dBm")),
    _schema("level"),
    _written("dBm"),
]  # fmt: skip
Energy = Annotated[
    float, _reader("energy", float, above_zero=True, at_most=_MOST_ENERGY), _schema("energy"), _written("J")
]
Temperature = Annotated[
    float,
    _reader("temperature", float, at_least=(_LEAST_DEGREES, f"{_LEAST_DEGREES} degC"),
            at_most=(_MOST_DEGREES, f"{_MOST_DEGREES} degC")),
    _schema("temperature"),
    _written("degC"),
]  # fmt: skip
ThermalResistance = Annotated[
    float, _reader("thermal resistance", float, above_zero=True), _schema("thermal resistance"), _written("K/W")
]
HeatCapacity = Annotated[
    float, _reader("heat capacity", float, above_zero=True), _schema("heat capacity"), _written("J/K")
]
Power = Annotated[float, _reader("power", float, at_least=_ZERO), _schema("power"), _written("W")]
Probability = Annotated[float, _reader("ratio", float, at_least=_ZERO, at_most=(1.0, "1")), _schema("ratio")]
Share = Probability
PositiveShare = Annotated[float, _reader("ratio", float, above_zero=True, at_most=(1.0, "1")), _schema("ratio")]
LossProbability = Annotated[float, _reader("ratio", float, at_least=_ZERO, at_most=(0.999, "0.999")), _schema("ratio")]
