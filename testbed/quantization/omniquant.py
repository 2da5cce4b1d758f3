"""OmniQuant (Shao et al. 2023): how a decoder layer is stored is learned from what the layer as a whole puts out.

Layer by layer, AdamW lowers the mean squared error between the full-precision layer's output on calibration text and
that of the layer as it will be stored, weights and inputs rounded. Two things are learned for every matrix: where each
group is clipped, and the factors of an equivalent transformation, which start as SmoothQuant's,

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha),    x W^T = (x / s) (W diag(s))^T.

Our own design: every linear layer divides its own input, as with SmoothQuant here, in place of factors folded into the
norm or the layer before it; factors are learned as logarithms, so that they stay positive; each layer is fed what it
gets in the full-precision model, so that it is learned alike whatever else is quantised and wherever the cut is; the
clipping starts at the groups' ends where the published start is worse; alpha is 0.5 where inputs are not rounded.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from testbed.quantization.blocks import BlockCall
from testbed.quantization.calibrate import collect
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import ActivationFormat, WeightFormat
from testbed.quantization.learned import INSIDE, OPEN, Epoch, LearnedLinear, Watch, no_watch
from testbed.quantization.packed import PackedLinear
from testbed.quantization.smoothquant import smooth_factors
from testbed.quantization.targets import Block, find_targets

ALPHA = 0.75
ALPHA_WITHOUT_INPUTS = 0.5  # where inputs are not rounded, weights have less to take over [our choice]


class OmniQuant:
    """Learns where to clip weights and how to scale inputs, block by block."""

    needs_text = False  # statistics of single inputs; it learns from whole layers

    def __init__(self, config: WeightConfig) -> None:
        self._learning = config.learning
        self._alpha = config.alpha

    def pack_block(
        self,
        block: Block,
        fmt: WeightFormat,
        inputs: ActivationFormat | None,
        calls: Sequence[BlockCall],
        watch: Watch = no_watch,
    ) -> Mapping[str, PackedLinear]:
        """A decoder layer's matrices, by their names in the whole model.

        Text is read in the order it has, so that the same calls give the same bits on the same machine and library.
        """
        calls = calls[: self._learning.num_samples]
        copied = copy.deepcopy(block.module).float().requires_grad_(False)
        module = nn.ModuleDict({"0": copied})  # a numbered block, where targets are found
        outputs: list[torch.Tensor] = []
        with torch.no_grad():
            seen = collect(module, lambda: outputs.extend(call.run(copied) for call in calls), first_layer=block.layer)
        default = ALPHA_WITHOUT_INPUTS if inputs is None else ALPHA
        alpha = default if self._alpha is None else self._alpha
        learners: dict[str, LearnedLinear] = {}
        for target in list(find_targets(module, block.layer)):
            factors = smooth_factors(seen[target.key].largest, target.weight, alpha) if fmt.smooth else None
            learner = LearnedLinear(target.weight, target.bias, fmt, inputs=inputs, factors=factors)
            learners[target.key] = learner
            module.set_submodule(target.path, learner)
        self._learn(block.layer, copied, learners.values(), list(zip(calls, outputs, strict=True)), watch)
        biases = {target.key: target.bias for target in find_targets(nn.ModuleDict({"0": block.module}), block.layer)}
        return {key: learner.packed(biases[key]) for key, learner in learners.items()}

    def _learn(
        self,
        layer: int,
        block: nn.Module,
        learners: Collection[LearnedLinear],
        wanted: Sequence[tuple[BlockCall, torch.Tensor]],
        watch: Watch,
    ) -> None:
        _start(block, learners, wanted)
        optimiser = self._optimiser(learners)
        for epoch in range(1, self._learning.epochs + 1):
            loss = _read_once(block, wanted, optimiser)
            watch(Epoch(layer=layer, epoch=epoch, num_epochs=self._learning.epochs, loss=loss))

    def _optimiser(self, learners: Collection[LearnedLinear]) -> torch.optim.Optimizer:
        clips = [item for learner in learners for item in learner.clips]
        factors = [item for learner in learners for item in learner.transformation]
        rates = [(clips, self._learning.clip_rate), (factors, self._learning.transform_rate)]
        return torch.optim.AdamW([{"params": found, "lr": rate} for found, rate in rates if found], weight_decay=0.0)


@torch.no_grad()
def _start(
    block: nn.Module, learners: Collection[LearnedLinear], wanted: Sequence[tuple[BlockCall, torch.Tensor]]
) -> None:
    """Clipping starts where the layer's error is the lower: as published, or at the groups' ends.

    The latter where a few tokens are many times as large as the others and shrinking their weights is most of it.
    """
    losses = {}
    for start in (INSIDE, OPEN):
        for learner in learners:
            learner.clip_to(start)
        losses[start] = sum(functional.mse_loss(call.run(block), output).item() for call, output in wanted)
    for learner in learners:
        learner.clip_to(min(losses, key=lambda start: losses[start]))


def _read_once(
    block: nn.Module, wanted: Sequence[tuple[BlockCall, torch.Tensor]], optimiser: torch.optim.Optimizer
) -> float:
    """One epoch, a step for every sequence; returns its mean loss."""
    total = 0.0
    with torch.enable_grad():
        for call, output in wanted:
            loss = functional.mse_loss(call.run(block), output)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item()
    return total / len(wanted)
