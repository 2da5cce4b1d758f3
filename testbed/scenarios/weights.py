"""How a scenario stores weights: one-point split compression, front and back each at their own precision."""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from testbed.core.errors import ScenarioError
from testbed.core.registry import QUANTISERS
from testbed.scenarios.base import Block, as_pydantic, registered

Bits = Literal[2, 3, 4, 5, 6, 8]
_METHODS_OF_ONE_FORMAT = ("fp8", "smoothquant")  # 8 bits, one scale a row
_METHODS_WITH_TEXT = ("gptq", "smoothquant", "omniquant", "atom")


class Learning(Block):
    """How omniquant learns: passes over the first calibration sequences, and the two rates of AdamW.

    Without `transform` it learns the clipping alone, and matrices keep no factor per input channel.
    """

    epochs: int = Field(default=20, ge=1)
    num_samples: int = Field(default=128, ge=1)
    clip_rate: float = Field(default=1e-2, gt=0)
    transform_rate: float = Field(default=1e-3, gt=0)
    transform: bool = True


class Weights(Block):
    """Bits of the layers before the cut (front) and behind it (back); null leaves them in the scenario's dtype.

    `group_size` null is one group a row. Activations are the inputs of the layers' linear parts, rounded per token and
    group when they come; their bits null leave it to the method: smoothquant rounds to 8, the others don't.
    `calibration` are texts for the methods that need some; without any they read the shipped corpus. `saved` is a
    folder of packed weights made with these settings, which real shards then load in place of packing their own.
    """

    method: Annotated[str, registered(QUANTISERS)] = "rtn"
    front_bits: Bits | None = None
    back_bits: Bits | None = None
    embedding_bits: Bits | None = None
    head_bits: Bits | None = None
    group_size: Literal[32, 64, 128] | None = None
    symmetric: bool = False
    front_activation_bits: Bits | None = None
    back_activation_bits: Bits | None = None
    activation_group_size: Literal[32, 64, 128] | None = None  # channels; null: the whole token
    activation_symmetric: bool = True
    activation_clip: float | None = Field(default=None, gt=0, le=1)  # share of the range; null: 1, or 0.9 of atom
    weight_clip: float | None = Field(default=None, gt=0, le=1)  # of atom; null: 0.85
    outlier_channels: int | None = Field(default=None, ge=1)  # of atom, at 8 bits; null: 128
    act_order: bool = False  # of gptq
    alpha: float | None = Field(default=None, ge=0, le=1)  # of smoothquant and omniquant, null: theirs
    learning: Learning | None = None  # of omniquant
    saved: Annotated[str, Field(min_length=1)] | None = None
    calibration: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        if self.method in _METHODS_OF_ONE_FORMAT:
            for key in ("front_bits", "back_bits"):
                if getattr(self, key) not in {None, 8}:
                    raise _at(key, f"{self.method} has one width", getattr(self, key), "8 or null")
            if self.group_size is not None:
                raise _at("group_size", f"{self.method} has one scale a row", self.group_size, "null")
        if self.learning is not None and self.method != "omniquant":
            raise _at("learning", f"{self.method} learns nothing", "set", "null, or method omniquant")
        self._check_activations()
        self._check_atom()
        if self.saved is not None and self.calibration:
            raise _at("calibration", "saved weights were calibrated when they were made", self.calibration[0], "[]")
        return self

    def _check_activations(self) -> None:
        """How activations are rounded says nothing where nobody says to how many bits."""
        if self.front_activation_bits is not None or self.back_activation_bits is not None:
            return
        for key in ("activation_group_size", "activation_symmetric", "activation_clip"):
            value, default = getattr(self, key), type(self).model_fields[key].default
            if value != default:
                allowed = f"{json.dumps(default)}, or bits under front_activation_bits or back_activation_bits"
                raise _at(key, "no activations are rounded", value, allowed)

    def _check_atom(self) -> None:
        for key in ("weight_clip", "outlier_channels"):
            if self.method != "atom" and getattr(self, key) is not None:
                raise _at(key, f"{self.method} has no such setting", getattr(self, key), "null, or method: atom")

    @property
    def needs_text(self) -> bool:
        """Whether shards that pack their own weights must read text first."""
        changes_layers = self.front_bits is not None or self.back_bits is not None
        return self.method in _METHODS_WITH_TEXT and changes_layers and self.saved is None


def _at(key: str, problem: str, value: object, allowed: str) -> Exception:
    return as_pydantic(ScenarioError(problem, path=key, value=value, allowed=allowed))
