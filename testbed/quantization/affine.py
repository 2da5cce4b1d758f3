"""Affine quantisation: integer codes with a scale and a zero point per group of a row.

    code = clamp(round(w / s) + z, 0, 2^Q - 1),   w_hat = (code - z) s

Asymmetric groups span [min(w, 0), max(w, 0)] with s = span / (2^Q - 1), so that zero is exact; symmetric ones have
s = 2 max|w| / (2^Q - 1) and z = 2^(Q-1). A format's `clip` shrinks the range first. Codes are chosen for the scale as
it is stored, in half precision.

Shapes: R rows, C columns, G groups a row, g columns a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from testbed.core.errors import ModelError
from testbed.quantization.formats import WeightFormat

LEAST_SCALE = 2.0**-24  # the smallest positive number in half precision
Rounding = Callable[[torch.Tensor], torch.Tensor]  # torch.round, or one that lets gradients pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values that the groups of a matrix can take: scales [R, G] float16, zero points [R, G] uint8."""

    scales: torch.Tensor
    zeros: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """A matrix as codes [R, C] uint8 on a grid."""

    codes: torch.Tensor
    grid: Grid


def choose_grid(weight_RC: torch.Tensor, fmt: WeightFormat) -> Grid:
    """Each group's grid from its smallest and largest weight; ModelError where a scale overflows half precision."""
    return grid_between(*group_ends(weight_RC, fmt), fmt)


def group_ends(weight_RC: torch.Tensor, fmt: WeightFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and the largest weight of each group [R, G], zero at most and at least; less what is clipped."""
    groups_RGg = _grouped(weight_RC.float(), fmt)
    return groups_RGg.amin(-1).clamp(max=0) * fmt.clip, groups_RGg.amax(-1).clamp(min=0) * fmt.clip


def grid_between(low_RG: torch.Tensor, high_RG: torch.Tensor, fmt: WeightFormat) -> Grid:
    """The grid of groups that span [low, high]; ModelError where a scale overflows half precision."""
    scales, zeros = grid_numbers(low_RG, high_RG, fmt)
    halves = scales.half()
    if not torch.isfinite(halves).all():
        value = float(torch.maximum(-low_RG, high_RG).max())
        raise ModelError("weights too large for a half-precision scale", value=value)
    return Grid(scales=halves, zeros=zeros.to(torch.uint8))


def grid_numbers(
    low_RG: torch.Tensor, high_RG: torch.Tensor, fmt: WeightFormat, rounding: Rounding = torch.round
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales before they are stored in half precision, and whole zero points; float32 both."""
    largest = float(2**fmt.bits - 1)
    if fmt.symmetric:
        scales = (torch.maximum(-low_RG, high_RG) / (largest / 2)).clamp(min=LEAST_SCALE)
        return scales, torch.full_like(scales, 2 ** (fmt.bits - 1))
    scales = ((high_RG - low_RG) / largest).clamp(min=LEAST_SCALE)
    return scales, (-rounding(low_RG / scales)).clamp(0, largest)


def quantise(weight_RC: torch.Tensor, grid: Grid, fmt: WeightFormat) -> Quantised:
    """Every weight rounded to its group's nearest value."""
    scale, zero = spread(grid.scales, weight_RC.shape[1], fmt), spread(grid.zeros, weight_RC.shape[1], fmt)
    return Quantised(codes=nearest(weight_RC, scale, zero, fmt.bits).to(torch.uint8), grid=grid)


def nearest(
    weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, rounding: Rounding = torch.round
) -> torch.Tensor:
    """Codes, as float32, of weights with a scale and a zero point each."""
    return (rounding(weight.float() * (1.0 / scale.float())) + zero.float()).clamp(0, 2**bits - 1)


def dequantise(
    codes_RC: torch.Tensor, scales_RG: torch.Tensor, zeros_RG: torch.Tensor | None, fmt: WeightFormat
) -> torch.Tensor:
    """The weights that codes stand for, float32; without zero points the format's symmetric one."""
    weight_RC = codes_RC.float()
    for weight_RGg, groups in _whole_and_last(weight_RC, fmt):
        weight_RGg.sub_(float(2 ** (fmt.bits - 1)) if zeros_RG is None else zeros_RG[:, groups, None].float())
        weight_RGg.mul_(scales_RG[:, groups, None].float())
    return weight_RC


def _whole_and_last(weight_RC: torch.Tensor, fmt: WeightFormat) -> Iterator[tuple[torch.Tensor, slice]]:
    """Views [R, G, g] of the groups of full width, and of a shorter one at the end; which groups they are."""
    columns = weight_RC.shape[1]
    width = columns if fmt.group_size is None else min(fmt.group_size, columns)
    groups, rest = divmod(columns, width)
    whole_RC = weight_RC[:, : columns - rest] if rest else weight_RC
    yield whole_RC.view(-1, groups, width), slice(groups)
    if rest:
        yield weight_RC[:, columns - rest :].unsqueeze(1), slice(groups, None)


def spread(per_group_RG: torch.Tensor, columns: int, fmt: WeightFormat) -> torch.Tensor:
    """A group's number beside each of its columns: [R, C], or [R, 1] where a row is one group."""
    if fmt.group_size is None:
        return per_group_RG
    return per_group_RG.repeat_interleave(fmt.group_size, dim=1)[:, :columns]


def _grouped(weight_RC: torch.Tensor, fmt: WeightFormat) -> torch.Tensor:
    """[R, G, g]; zeros that fill the last group change no grid, since every grid spans zero."""
    rows, columns = weight_RC.shape
    width = fmt.group_size or columns
    padded = functional.pad(weight_RC, (0, -columns % width))
    return padded.view(rows, fmt.groups(columns), width)
