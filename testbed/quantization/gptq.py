"""GPTQ (Frantar et al. 2023): columns are rounded one by one, later ones make up for the error of earlier ones.

With H = X^T X over calibration rows, damped by 1 % of its mean diagonal, and U the upper Cholesky factor of H^-1,
column j's error (w_j - w_hat_j) / U_jj is taken off the columns after it in the proportions of U_j. `act_order` takes
columns by falling H_jj; groups then keep the grids of the original weights, so that they can be stored in their natural
order. Statistics are those of the full-precision model [our design; published practice runs layer after layer through
what is already quantised].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from testbed.core.errors import ModelError
from testbed.quantization.affine import Grid, Quantised, choose_grid, nearest
from testbed.quantization.calibrate import InputStatistics
from testbed.quantization.config import WeightConfig
from testbed.quantization.formats import WeightFormat
from testbed.quantization.packed import PackedLinear
from testbed.quantization.stores import AffineStore

DAMPING = 0.01
BLOCK = 128  # columns whose later corrections are made in one product; a multiple of every group size


class Gptq:
    """Rounds column after column; the columns still to come take up the error, as inputs of the layer weigh it."""

    needs_text = True

    def __init__(self, config: WeightConfig) -> None:
        self._act_order = config.act_order

    def pack(
        self, weight_RC: torch.Tensor, bias: torch.Tensor | None, fmt: WeightFormat, seen: InputStatistics | None
    ) -> PackedLinear:
        """One linear layer, rounded for the inputs it was seen to get."""
        assert seen is not None, "checked by quantise_module"
        return PackedLinear(AffineStore(fmt, gptq(weight_RC, seen.gram, fmt, act_order=self._act_order)), bias)


def gptq(weight_RC: torch.Tensor, gram_CC: torch.Tensor, fmt: WeightFormat, *, act_order: bool) -> Quantised:
    """Codes and grid of a matrix; columns that the text never touched become zero.

    Raises ModelError where the second moments can't be inverted.
    """
    weight, hessian = _damped(weight_RC, gram_CC)
    diagonal = hessian.diagonal()
    order = torch.argsort(diagonal, descending=True, stable=True) if act_order else torch.arange(len(diagonal))
    order = order.to(weight.device)
    factor = _inverse_factor(hessian[order][:, order])
    grids = _Grids(fmt, weight, order if act_order else None)
    codes = _round_columns(weight[:, order], factor, grids, range(len(diagonal)))
    natural = torch.empty_like(codes)
    natural[:, order] = codes
    return Quantised(codes=natural, grid=grids.grid())


def gptq_parts(
    weight_RC: torch.Tensor, gram_CC: torch.Tensor, parts: Sequence[tuple[int, WeightFormat]]
) -> list[Quantised]:
    """Consecutive parts of the columns, each (how many, in which format), rounded in one go from the first to the last.

    A part's grids are chosen when its turn comes, from weights that make up for the error of all parts before it.
    """
    weight, hessian = _damped(weight_RC, gram_CC)
    factor, start, found = _inverse_factor(hessian), 0, []
    for num_columns, fmt in parts:
        columns = range(start, start := start + num_columns)
        grids = _Grids(fmt, weight[:, columns.start : columns.stop], None)
        codes = _round_columns(weight, factor, grids, columns)
        found.append(Quantised(codes=codes, grid=grids.grid()))
    return found


def _damped(weight_RC: torch.Tensor, gram_CC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and Hessian to work on, in double precision."""
    weight, hessian = weight_RC.double().clone(), gram_CC.double().clone()
    diagonal = hessian.diagonal()
    untouched = diagonal == 0
    diagonal[untouched] = 1.0
    weight[:, untouched] = 0.0
    diagonal += DAMPING * diagonal.mean()
    return weight, hessian


class _Grids:
    """Scales and zero points of the columns in the order they are rounded in.

    In the natural order (`order` None) a group's grid is chosen anew when its first column comes up.
    """

    def __init__(self, fmt: WeightFormat, weight: torch.Tensor, order: torch.Tensor | None) -> None:
        self.fmt, self.order = fmt, order
        self._found = choose_grid(weight, fmt)
        self._width = fmt.group_size or weight.shape[1]

    def column(self, place: int, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero point [R] of the column at a place; `current` [R, rest of the block] starts there."""
        if self.order is not None:
            group = int(self.order[place]) // self._width
        else:
            group = place // self._width
            if place % self._width == 0 and self.fmt.group_size is not None:
                self._renew(group, current[:, : self._width])
        return self._found.scales[:, group].double(), self._found.zeros[:, group].double()

    def grid(self) -> Grid:
        return self._found

    def _renew(self, group: int, columns: torch.Tensor) -> None:
        fresh = choose_grid(columns, replace(self.fmt, group_size=None))
        self._found.scales[:, group] = fresh.scales[:, 0]
        self._found.zeros[:, group] = fresh.zeros[:, 0]


def _round_columns(weight_RC: torch.Tensor, factor_CC: torch.Tensor, grids: _Grids, columns: range) -> torch.Tensor:
    """Codes of these columns; all weights behind them are changed in place."""
    codes = torch.zeros(weight_RC.shape[0], len(columns), dtype=torch.uint8, device=weight_RC.device)
    for start in range(columns.start, columns.stop, BLOCK):
        stop = min(start + BLOCK, columns.stop)
        block = weight_RC[:, start:stop].clone()
        errors = torch.zeros_like(block)
        for place in range(start, stop):
            here = place - start
            scale, zero = grids.column(place - columns.start, block[:, here:])
            code = nearest(block[:, here], scale, zero, grids.fmt.bits)
            codes[:, place - columns.start] = code.to(torch.uint8)
            errors[:, here] = (block[:, here] - (code.double() - zero) * scale) / factor_CC[place, place]
            block[:, here:] -= torch.outer(errors[:, here], factor_CC[place, place:stop])
        weight_RC[:, stop:] -= errors @ factor_CC[start:stop, stop:]
    return codes


def _inverse_factor(hessian_CC: torch.Tensor) -> torch.Tensor:
    """U with U^T U = H^-1."""
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian_CC))
        upper: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    except RuntimeError as error:
        problem = "the inputs seen in calibration don't determine the layer; use more text"
        raise ModelError(problem, value=str(error)[:100]) from None
    return upper
