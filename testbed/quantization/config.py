"""What is quantised how: one-point split compression (OPSC) as a value."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.quantization.formats import ActivationFormat, WeightFormat, inputs_of

LEAST_TOKENS = 64  # of calibration text: fewer say next to nothing of a layer's input


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How OmniQuant learns: passes over the first `num_samples` calibration sequences, a step of AdamW each.

    The rates are those of the clipping and of the transformation's factors.
    """

    epochs: int = 20
    num_samples: int = 128
    clip_rate: float = 1e-2
    transform_rate: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightConfig:
    """Two precisions with one change point: layers below `split` are stored as `front`, the others as `back`.

    None stays as it is. `front_inputs` and `back_inputs` say how the inputs of those layers' linear parts are rounded
    (Q_a1 and Q_a2), packed or not; None leaves it to the method, and most round none. Token table and LM head have
    formats of their own and are always rounded to nearest; norms, biases and position tables are never quantised.
    `act_order` concerns GPTQ, `learning` OmniQuant, `alpha` SmoothQuant and OmniQuant, each with its own default.
    """

    method: str = "rtn"
    split: int
    front: WeightFormat | None = None
    back: WeightFormat | None = None
    front_inputs: ActivationFormat | None = None
    back_inputs: ActivationFormat | None = None
    embedding: WeightFormat | None = None
    head: WeightFormat | None = None
    act_order: bool = False
    alpha: float | None = None
    learning: Learning = Learning()

    def of_layer(self, layer: int) -> WeightFormat | None:
        """The format of a decoder layer's matrices, layers counted from 0."""
        return self.front if layer < self.split else self.back

    def inputs_of_layer(self, layer: int) -> ActivationFormat | None:
        """How the inputs of a decoder layer's linear parts are rounded; None: not at all."""
        chosen = self.front_inputs if layer < self.split else self.back_inputs
        return inputs_of(self.method) if chosen is None and self.of_layer(layer) is not None else chosen
