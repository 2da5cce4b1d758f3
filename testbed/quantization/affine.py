"""Affine quantisation: integer codes with a scale and a zero point per group of a row.

    code = clamp(round(w / s) + z, 0, 2^Q - 1),   w_hat = (code - z) s

Asymmetric groups span [min(w, 0), max(w, 0)] with s = span / (2^Q - 1), so that zero is exact; symmetric ones have
s = 2 max|w| / (2^Q - 1) and z = 2^(Q-1). A format's `clip` shrinks the range first. Codes are chosen for the scale as
it is stored, in half precision.

Shapes: R rows, C columns, G groups a row, g columns a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from testbed.core.errors import ModelError
from testbed.quantization.formats import WeightFormat

LEAST_SCALE = 2.0**-24  # the smallest positive number in half precision


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
    groups_RGg = _grouped(weight_RC.float(), fmt)
    low, high = groups_RGg.amin(-1).clamp(max=0) * fmt.clip, groups_RGg.amax(-1).clamp(min=0) * fmt.clip
    largest = float(2**fmt.bits - 1)
    if fmt.symmetric:
        exact = torch.maximum(-low, high) / (largest / 2)
        zeros = torch.full_like(exact, 2 ** (fmt.bits - 1))
        scales = exact.clamp(min=LEAST_SCALE)
    else:
        scales = ((high - low) / largest).clamp(min=LEAST_SCALE)
        zeros = (-torch.round(low / scales)).clamp(0, largest)
    halves = scales.half()
    if not torch.isfinite(halves).all():
        raise ModelError("weights too large for a half-precision scale", value=float(weight_RC.abs().max()))
    return Grid(scales=halves, zeros=zeros.to(torch.uint8))


def quantise(weight_RC: torch.Tensor, grid: Grid, fmt: WeightFormat) -> Quantised:
    """Every weight rounded to its group's nearest value."""
    scale, zero = spread(grid.scales, weight_RC.shape[1], fmt), spread(grid.zeros, weight_RC.shape[1], fmt)
    return Quantised(codes=nearest(weight_RC, scale, zero, fmt.bits).to(torch.uint8), grid=grid)


def nearest(weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes, as float32, of weights with a scale and a zero point each."""
    return (torch.round(weight.float() * (1.0 / scale.float())) + zero.float()).clamp(0, 2**bits - 1)


def dequantise(
    codes_RC: torch.Tensor, scales_RG: torch.Tensor, zeros_RG: torch.Tensor | None, fmt: WeightFormat
) -> torch.Tensor:
    """The weights that codes stand for, float32; without zero points the format's symmetric one."""
    columns = codes_RC.shape[1]
    weight_RC = codes_RC.float()
    if zeros_RG is None:
        weight_RC -= float(2 ** (fmt.bits - 1))
    else:
        weight_RC -= spread(zeros_RG, columns, fmt).float()
    weight_RC *= spread(scales_RG, columns, fmt).float()
    return weight_RC


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
