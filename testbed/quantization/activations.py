"""Rounding of what is multiplied with a matrix: every token on grids of its own, chosen when it comes (dynamic).

    code = clamp(round(x / s) + z, 0, 2^Q - 1),   x_hat = (code - z) s

Symmetric grids have s = c max|x| / (2^(Q-1) - 1) and z = 2^(Q-1), as the published W8A8 and W4A4 methods have them;
asymmetric ones span c [min(x, 0), max(x, 0)] with s = span / (2^Q - 1), so that zero is exact. c is the share of the
range that is kept. Nothing of a grid is stored, so scales are float32.

Shapes: N tokens, C channels, G groups, g channels a group.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from testbed.quantization.affine import Rounding, nearest
from testbed.quantization.formats import OUTLIER_INPUTS, ActivationFormat

LEAST_SCALE = torch.finfo(torch.float32).tiny  # its reciprocal is still finite


def round_inputs(x: torch.Tensor, fmt: ActivationFormat, rounding: Rounding = torch.round) -> torch.Tensor:
    """Inputs [..., C] with every token, or every group of its channels, rounded to 2^Q values; in their own dtype."""
    columns = x.shape[-1]
    width = fmt.group_size or columns
    rows_NC = functional.pad(x.reshape(-1, columns).float(), (0, -columns % width))
    groups_NGg = rows_NC.view(rows_NC.shape[0], -1, width)  # zeros that fill the last group change no grid
    scale, zero = _grid(groups_NGg, fmt, rounding)
    rounded_NGg = (nearest(groups_NGg, scale, zero, fmt.bits, rounding) - zero) * scale
    return rounded_NGg.view(rows_NC.shape)[:, :columns].reshape(x.shape).to(x.dtype)


def round_mixed(x: torch.Tensor, fmt: ActivationFormat, num_outliers: int) -> torch.Tensor:
    """Inputs of which the last channels are outliers, which get OUTLIER_INPUTS in place of `fmt`."""
    if num_outliers == 0:
        return round_inputs(x, fmt)
    body, outliers = x[..., :-num_outliers], x[..., -num_outliers:]
    return torch.cat([round_inputs(body, fmt), round_inputs(outliers, OUTLIER_INPUTS)], dim=-1)


def _grid(groups_NGg: torch.Tensor, fmt: ActivationFormat, rounding: Rounding) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point [N, G, 1] of every group."""
    low = groups_NGg.amin(-1, keepdim=True).clamp(max=0) * fmt.clip
    high = groups_NGg.amax(-1, keepdim=True).clamp(min=0) * fmt.clip
    if fmt.symmetric:
        scale = torch.maximum(-low, high) / (2 ** (fmt.bits - 1) - 1)
        return scale.clamp(min=LEAST_SCALE), torch.full_like(scale, 2 ** (fmt.bits - 1))
    largest = float(2**fmt.bits - 1)
    scale = ((high - low) / largest).clamp(min=LEAST_SCALE)
    return scale, (-rounding(low / scale)).clamp(0, largest)
