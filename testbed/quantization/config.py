"""What is quantised how: one-point split compression (OPSC) as a value."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.quantization.formats import WeightFormat

LEAST_TOKENS = 64  # of calibration text: fewer say next to nothing of a layer's input


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightConfig:
    """Two precisions with one change point: layers below `split` are stored as `front`, the others as `back`.

    None stays as it is. Token table and LM head have formats of their own and are always rounded to nearest; norms,
    biases and position tables are never quantised. `act_order` concerns GPTQ, `alpha` SmoothQuant.
    """

    method: str = "rtn"
    split: int
    front: WeightFormat | None = None
    back: WeightFormat | None = None
    embedding: WeightFormat | None = None
    head: WeightFormat | None = None
    act_order: bool = False
    alpha: float = 0.85

    def of_layer(self, layer: int) -> WeightFormat | None:
        """The format of a decoder layer's matrices, layers counted from 0."""
        return self.front if layer < self.split else self.back
