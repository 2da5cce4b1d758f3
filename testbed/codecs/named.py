"""The codecs that a scenario can name: each a stage with its settings, perhaps a threshold and an entropy coder."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from testbed.codecs.agreed import Agreed, check_agreement
from testbed.codecs.agreed_rans import AgreedRans
from testbed.codecs.entropy import CODER_NAMES, EntropyCoder
from testbed.codecs.framing import Codec
from testbed.codecs.pipeline import Pipeline
from testbed.codecs.raw import Bfloat16Stage, Float16Stage, Float32Stage
from testbed.codecs.reference import INT_L2, INT_MEAN, INT_REL, TabqSetting
from testbed.codecs.rotation import Rotation
from testbed.codecs.sparse import Threshold
from testbed.codecs.stages import Stage
from testbed.codecs.tabq import AsymmetricTabqStage, TabqStage
from testbed.codecs.uniform import Fp8Stage, UniformStage
from testbed.core.errors import ScenarioError
from testbed.core.registry import CODECS
from testbed.scenarios.base import as_pydantic
from testbed.scenarios.codec_setting import MEANS, CodecConfig, codec_name, read_setting

DEFAULT_TAU = 10.0
_TESTS = {"int_l2": INT_L2, "int_mean": INT_MEAN, "int_rel": INT_REL}
_FLOATS: dict[str, type[Stage]] = {
    "raw-float32": Float32Stage,
    "raw-float16": Float16Stage,
    "raw-bfloat16": Bfloat16Stage,
    "fp8": Fp8Stage,
}


def make_codec(setting: str, agreed: Agreed | None = None) -> Codec:
    """The codec that a setting stands for, ``name`` or ``name(key=value,...)``; raises ScenarioError for none.

    Raises CodecError where the setting needs an agreement between the two sides and `agreed` is none.
    """
    config = read_setting(setting)
    check_agreement(config, agreed)
    return _made(setting, config, agreed)


def size_law(setting: str) -> Codec:
    """The codec as far as its sizes go: one that needs an agreement refuses to encode and decode."""
    return _made(setting, read_setting(setting), None)


def _made(setting: str, config: CodecConfig, agreed: Agreed | None) -> Codec:
    build = CODECS.load(codec_name(setting))
    made: Codec = build(config, agreed) if agreed is not None and config.agreed_parts() else build(config)
    return made


def _coder(config: CodecConfig, agreed: Agreed | None) -> EntropyCoder:
    if config.tables == "message":
        return CODER_NAMES[config.entropy]
    return AgreedRans(None if agreed is None else agreed.tables)


class RawFloat32(Pipeline):
    """Hidden states as they are: four bytes a value."""

    class Config(CodecConfig):
        kind: Literal["raw-float32"] = "raw-float32"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        super().__init__(Float32Stage(), _coder(config or self.Config(), agreed), agreed=agreed)


class RawFloat16(Pipeline):
    """IEEE half precision, two bytes a value; beyond 65,504 infinite."""

    class Config(CodecConfig):
        kind: Literal["raw-float16"] = "raw-float16"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        super().__init__(Float16Stage(), _coder(config or self.Config(), agreed), agreed=agreed)


class RawBfloat16(Pipeline):
    """The upper half of float32, two bytes a value."""

    class Config(CodecConfig):
        kind: Literal["raw-bfloat16"] = "raw-bfloat16"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        super().__init__(Bfloat16Stage(), _coder(config or self.Config(), agreed), agreed=agreed)


class LossyConfig(CodecConfig):
    """What may come before a quantiser, in this order: `centre`, a threshold where the codec has one, and `rotate`.

    `centre` subtracts each channel's mean, agreed on at the start of the session; `rotate` spreads each value over its
    token; `signs`, a key that both sides know, flips fixed random channels before.
    """

    centre: bool = False
    rotate: Literal["none", "hadamard"] = "none"
    signs: int | None = Field(default=None, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _signs_are_rotated(self) -> Self:
        if self.signs is not None and self.rotate == "none":
            raise as_pydantic(ScenarioError("signs without a rotation", path="signs", value=self.signs))
        return self

    def agreed_parts(self) -> frozenset[str]:
        return super().agreed_parts() | ({MEANS} if self.centre else set())

    def rotation(self) -> Rotation | None:
        return None if self.rotate == "none" else Rotation(self.signs)


class Lossy(Pipeline):
    """A quantiser and what may come before it."""

    def __init__(
        self,
        stage: Stage,
        config: LossyConfig,
        agreed: Agreed | None,
        *,
        threshold: Threshold | None = None,
        modelled_bits: float | None = None,
        modelled_above: float | None = None,
    ) -> None:
        super().__init__(
            stage,
            _coder(config, agreed),
            threshold=threshold,
            centre=config.centre,
            rotation=config.rotation(),
            agreed=agreed,
            modelled_bits=modelled_bits,
            modelled_above=modelled_above,
        )


class GridConfig(LossyConfig):
    """A uniform grid, symmetric around 0 or from a row's smallest to its largest value."""

    symmetric: bool = True


class UniformInt8(Lossy):
    """Uniform quantisation, 8 bits a value and a scale a token."""

    class Config(GridConfig):
        kind: Literal["int8"] = "int8"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        config = config or self.Config()
        super().__init__(UniformStage(8, symmetric=config.symmetric), config, agreed)


class UniformInt4(Lossy):
    """Uniform quantisation, 4 bits a value and a scale a token."""

    class Config(GridConfig):
        kind: Literal["int4"] = "int4"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        config = config or self.Config()
        super().__init__(UniformStage(4, symmetric=config.symmetric), config, agreed)


class Uniform(Lossy):
    """Uniform quantisation, `bits` bits a value and a scale a token; at 8 and 4 bits it is `int8` and `int4`."""

    class Config(GridConfig):
        kind: Literal["uniform"] = "uniform"
        bits: int = Field(default=4, ge=2, le=8)

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        config = config or self.Config()
        super().__init__(UniformStage(config.bits, symmetric=config.symmetric), config, agreed)


class Fp8(Lossy):
    """8-bit floats E4M3 and a scale a token."""

    class Config(LossyConfig):
        kind: Literal["fp8"] = "fp8"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        super().__init__(Fp8Stage(), config or self.Config(), agreed)


class ModelledConfig(LossyConfig):
    """What a modelled device's message takes, where content decides: figures measured on real hidden states."""

    modelled_bits: float | None = Field(default=None, gt=0, le=32)  # a value, before sparse ones; none: upper bound


class ThresholdConfig(LossyConfig):
    """TS: `tau`, or tau as a quantile of a message's magnitudes, or so that `per_row` values of a row lie above."""

    tau: float | None = Field(default=None, ge=0)
    quantile: float | None = Field(default=None, ge=0, le=1)
    per_row: float | None = Field(default=None, ge=0)
    modelled_above: float | None = Field(default=None, ge=0, le=1)  # share of values that are split off

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in ("tau", "quantile", "per_row") if getattr(self, name) is not None]
        if len(given) > 1:
            raise as_pydantic(ScenarioError("only one of tau, quantile and per_row", path=given[1]))
        return self

    def threshold(self) -> Threshold:
        if self.quantile is None and self.per_row is None:
            return Threshold(tau=DEFAULT_TAU if self.tau is None else self.tau)
        return Threshold(quantile=self.quantile, per_row=self.per_row)


class TabqConfig(ModelledConfig):
    """TAB-Q: the distortion test with its tolerance, and the smallest and largest width.

    `symmetric: false` takes unsigned codes from a row's smallest to its largest value; `requantise` makes the codes at
    the chosen width from the values again.
    """

    delta: float = Field(default=0.1, ge=0)
    test: Literal["int_l2", "int_mean", "int_rel"] = "int_l2"
    qmin: int = Field(default=2, ge=2, le=8)
    qmax: int = Field(default=8, ge=2, le=8)
    symmetric: bool = True
    requantise: bool = False

    @model_validator(mode="after")
    def _widths_in_order(self) -> Self:
        if self.qmin > self.qmax:
            raise as_pydantic(ScenarioError("too large", path="qmin", value=self.qmin, allowed=f"at most {self.qmax}"))
        return self

    def stage(self) -> Stage:
        setting = TabqSetting(_TESTS[self.test], self.delta, self.qmin, self.qmax, self.requantise)
        return TabqStage(setting) if self.symmetric else AsymmetricTabqStage(setting)


class Ts(Lossy):
    """Threshold splitting before one of the fixed stages: large values as they are, the rest at 4 bits or so."""

    class Config(ThresholdConfig):
        kind: Literal["ts"] = "ts"
        below: Literal["raw-float32", "raw-float16", "raw-bfloat16", "int8", "int4", "uniform", "fp8"] = "int4"
        bits: int | None = Field(default=None, ge=2, le=8)  # of `uniform` below
        symmetric: bool = True

        @model_validator(mode="after")
        def _fits_below(self) -> Self:
            if (self.bits is None) == (self.below == "uniform"):
                problem = "uniform below takes bits, and nothing else does"
                raise as_pydantic(ScenarioError(problem, path="bits", value=self.bits))
            if not self.symmetric and self.below not in {"int8", "int4", "uniform"}:
                problem = "only a uniform grid can be asymmetric"
                raise as_pydantic(ScenarioError(problem, path="symmetric", value=self.symmetric))
            return self

        def stage(self) -> Stage:
            if self.below in _FLOATS:
                return _FLOATS[self.below]()
            return UniformStage(self.bits or int(self.below.removeprefix("int")), symmetric=self.symmetric)

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        config = config or self.Config()
        super().__init__(
            config.stage(), config, agreed, threshold=config.threshold(), modelled_above=config.modelled_above
        )


class Tabq(Lossy):
    """TAB-Q: each token at the fewest bits that its distortion tolerance allows."""

    class Config(TabqConfig):
        kind: Literal["tabq"] = "tabq"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        config = config or self.Config()
        super().__init__(config.stage(), config, agreed, modelled_bits=config.modelled_bits)


class TsTabq(Lossy):
    """Threshold splitting, then TAB-Q on the rest: the two stages in the published order."""

    class Config(TabqConfig, ThresholdConfig):
        kind: Literal["ts-tabq"] = "ts-tabq"

    def __init__(self, config: Config | None = None, agreed: Agreed | None = None) -> None:
        config = config or self.Config()
        super().__init__(
            config.stage(),
            config,
            agreed,
            threshold=config.threshold(),
            modelled_bits=config.modelled_bits,
            modelled_above=config.modelled_above,
        )
