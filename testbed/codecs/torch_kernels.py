"""The kernels of threshold splitting, TAB-Q and uniform grids on a tensor, wherever it lies: results of reference.py.

A tensor comes in, and what a message is made of leaves for the host, so that hidden states on an accelerator cross the
bus as codes. Products and sums are operations of their own, since a fused multiply-add would round once instead of
twice; divisors are tensors, since torch multiplies by the inverse of a Python number; integers add up in 64 bits.

Shapes: N tokens, D hidden size, both at least 1; W bytes of a stripe, ceil(D / 8).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from testbed.codecs.framing import CodecError, F32Array, U8Array, U32Array
from testbed.codecs.reference import FULL_WIDTH, INT_L2, INT_MEAN, SMALLEST_SCALE, TabqSetting

_MAGNITUDE = 0x7FFFFFFF
_TOP = 255.0


def as_float32(hidden_ND: torch.Tensor) -> torch.Tensor:
    """Hidden states of any floating-point dtype as contiguous float32, where they are."""
    if hidden_ND.ndim != 2 or not hidden_ND.is_floating_point():  # noqa: PLR2004
        raise CodecError(f"hidden states are floats [n, d], but got {hidden_ND.dtype} {list(hidden_ND.shape)}")
    return hidden_ND.detach().to(torch.float32).contiguous()


def on_host(tensor: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.contiguous().cpu().numpy()
    return array


def centred(hidden_ND: torch.Tensor, means_D: F32Array) -> torch.Tensor:
    return hidden_ND - torch.from_numpy(means_D).to(hidden_ND.device)


def gather(seen_ND: torch.Tensor, tau_bits: int, hidden_ND: torch.Tensor) -> tuple[U32Array, U32Array, U32Array]:
    """(count of each row, columns, bits in `hidden_ND`) of what is at or above the threshold in `seen_ND`."""
    above_ND = _above(seen_ND, tau_bits)
    columns_M = above_ND.nonzero(as_tuple=True)[1]
    values_M = on_host(hidden_ND.view(torch.int32)[above_ND]).view(np.uint32)
    return on_host(above_ND.sum(1)).astype(np.uint32), on_host(columns_M).astype(np.uint32), values_M


class _Rows(NamedTuple):
    """TAB-Q's rows: widths [N], scales [N], codes [N, D] at those widths, whether a value is negative, values above."""

    widths: torch.Tensor
    scales: torch.Tensor
    codes: torch.Tensor
    negative: torch.Tensor
    num_above: int


def tabq_pack(hidden_ND: torch.Tensor, tau_bits: int, setting: TabqSetting) -> tuple[U8Array, F32Array, U8Array, int]:
    rows = _rows(hidden_ND, tau_bits, setting)
    stripe = -(-hidden_ND.shape[1] // 8)
    sizes_N = torch.where(rows.widths > 0, (rows.widths + 1) * stripe, 0)
    ends_N = sizes_N.cumsum(0)
    payload = torch.empty(int(ends_N[-1]), dtype=torch.uint8, device=hidden_ND.device)
    for width in range(setting.qmin, setting.qmax + 1):
        (chosen,) = (rows.widths == width).nonzero(as_tuple=True)
        if chosen.numel():
            planes = [_striped(rows.codes[chosen], width), _striped(rows.negative[chosen].int(), 1)]
            starts = (ends_N - sizes_N)[chosen, None]
            payload[starts + torch.arange((width + 1) * stripe, device=starts.device)] = torch.cat(planes, 1)
    return (*_side(rows), on_host(payload), rows.num_above)


def tabq_symbols(
    hidden_ND: torch.Tensor, tau_bits: int, setting: TabqSetting
) -> tuple[U8Array, F32Array, U8Array, U8Array, int]:
    rows = _rows(hidden_ND, tau_bits, setting)
    widths_N1 = rows.widths[:, None]
    signed_ND = torch.where(rows.negative, -rows.codes, rows.codes) + ((1 << widths_N1) - 1)
    symbols_ND = torch.where(widths_N1 == FULL_WIDTH, rows.codes, signed_ND).to(torch.uint8)
    symbols_ND[rows.widths == 0] = 0
    planes = _striped(rows.negative[rows.widths == FULL_WIDTH].int(), 1)
    return (*_side(rows), on_host(symbols_ND), on_host(planes).reshape(-1), rows.num_above)


def uniform_codes(
    hidden_ND: torch.Tensor, tau_bits: int, bits: int, symmetric: bool
) -> tuple[F32Array, U8Array, torch.Tensor, int]:
    """Codes [N, D] stay where the values are, for `pack_rows`."""
    above_ND = _above(hidden_ND, tau_bits)
    below_ND = torch.where(above_ND, 0.0, hidden_ND)
    top = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    divisor = _tensor(top, hidden_ND)
    if symmetric:
        scales_N = below_ND.abs().amax(1) / divisor
        zeros_N = torch.zeros_like(scales_N)
    else:
        lows_N = below_ND.amin(1).clamp(max=0)
        scales_N = below_ND.amax(1).clamp(min=0) / divisor - lows_N / divisor + 0.0  # never -0
        zeros_N = (-lows_N / torch.where(scales_N > 0, scales_N, 1.0)).round().clamp(max=top)
    steps_N1 = torch.where(scales_N > 0, scales_N, 1.0)[:, None]
    zeros_N1 = zeros_N.int()[:, None]
    lowest_N1 = torch.full_like(zeros_N1, -top) if symmetric else -zeros_N1
    signed_ND = torch.clamp((below_ND / steps_N1).round().int(), lowest_N1, top - zeros_N1)
    codes_ND = ((signed_ND + zeros_N1) & (2**bits - 1)).to(torch.uint8)
    return on_host(scales_N), on_host(zeros_N.to(torch.uint8)), codes_ND, int(above_ND.sum())


def pack_rows(codes_ND: torch.Tensor, widths_N: U8Array) -> U8Array:
    """Rows of one width for all."""
    width, hidden_size = int(widths_N[0]), codes_ND.shape[1]
    eights = pad(codes_ND, (0, -hidden_size % 8)).reshape(codes_ND.shape[0], -1, 8)
    packed = _bytes(_words(eights.unbind(2), width), width, dim=2).reshape(codes_ND.shape[0], -1)
    return on_host(packed[:, : (hidden_size * width + 7) // 8]).reshape(-1)


def _above(hidden_ND: torch.Tensor, tau_bits: int) -> torch.Tensor:
    return (hidden_ND.view(torch.int32) & _MAGNITUDE) >= tau_bits


def _tensor(number: float, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.float32, device=like.device)


def _rows(hidden_ND: torch.Tensor, tau_bits: int, setting: TabqSetting) -> _Rows:
    above_ND = _above(hidden_ND, tau_bits)
    below_ND = torch.where(above_ND, 0.0, hidden_ND)
    magnitudes_ND, top = below_ND.abs(), _tensor(_TOP, hidden_ND)
    peaks_N = magnitudes_ND.amax(1)
    lives_N = peaks_N / top >= float(SMALLEST_SCALE)
    divisors_N = torch.where(lives_N, peaks_N, 1.0)
    codes_ND = _rounded(magnitudes_ND, top / divisors_N, torch.full_like(peaks_N, _TOP))
    codes_ND[~lives_N] = 0
    widths_N = torch.where(lives_N, _widths(codes_ND, setting), 0)
    tops_N = ((1 << widths_N) - 1).float() if setting.requantise else torch.full_like(peaks_N, _TOP)
    if setting.requantise:
        codes_ND = _rounded(magnitudes_ND, tops_N / divisors_N, tops_N)
    else:
        codes_ND = _narrowed(codes_ND, widths_N[:, None])
    scales_N = torch.where(lives_N, peaks_N / torch.where(lives_N, tops_N, 1.0), 0.0)
    return _Rows(widths_N, scales_N, codes_ND, torch.signbit(below_ND), int(above_ND.sum()))


def _rounded(magnitudes_ND: torch.Tensor, factors_N: torch.Tensor, tops_N: torch.Tensor) -> torch.Tensor:
    scaled_ND = magnitudes_ND * factors_N[:, None]
    return torch.minimum((scaled_ND + 0.5).floor(), tops_N[:, None]).int()


def _narrowed(codes_ND: torch.Tensor, widths_N1: torch.Tensor) -> torch.Tensor:
    dropped_N1 = FULL_WIDTH - widths_N1
    return torch.minimum((codes_ND + ((1 << dropped_N1) >> 1)) >> dropped_N1, (1 << widths_N1) - 1).int()


def _widths(codes_ND: torch.Tensor, setting: TabqSetting) -> torch.Tensor:
    """b* [N]: every width is tried, the smallest accepted one last."""
    squared, sums_N = setting.test == INT_L2, codes_ND.sum(1, dtype=torch.int64)
    if squared:
        limits_N = setting.delta * setting.delta * (codes_ND * codes_ND).sum(1, dtype=torch.int64).double()
    elif setting.test == INT_MEAN:
        limits_N = torch.full_like(sums_N, np.floor(setting.delta * codes_ND.shape[1]), dtype=torch.float64)
    else:
        limits_N = setting.delta * sums_N.double()
    widths_N = torch.full_like(sums_N, setting.qmax)
    for width in range(setting.qmax - 1, setting.qmin - 1, -1):
        grid = torch.full_like(codes_ND[:, :1], width)
        errors_ND = codes_ND - (_narrowed(codes_ND, grid) << (FULL_WIDTH - width))
        errors_ND = errors_ND * errors_ND if squared else errors_ND.abs()
        widths_N = torch.where(errors_ND.sum(1, dtype=torch.int64).double() <= limits_N, width, widths_N)
    return widths_N


def _side(rows: _Rows) -> tuple[U8Array, F32Array]:
    return on_host(rows.widths.to(torch.uint8)), on_host(rows.scales)


def _striped(codes_ND: torch.Tensor, width: int) -> torch.Tensor:
    """Rows [N, width W]: value i lies in stripe i // W, and byte t of the eight at one place lies in plane t."""
    stripe = -(-codes_ND.shape[1] // 8)
    stripes = pad(codes_ND, (0, 8 * stripe - codes_ND.shape[1])).reshape(-1, 8, stripe)
    return _bytes(_words(stripes.unbind(1), width), width, dim=1).flatten(1)


def _words(codes: tuple[torch.Tensor, ...], width: int) -> torch.Tensor:
    """Eight codes in 8 `width` bits, the first lowest; the topmost bit of 64 is the sign's."""
    word = codes[0].long()
    for place, more in enumerate(codes[1:], start=1):
        word = word | (more.long() << (place * width))
    return word


def _bytes(words: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    return torch.stack([((words >> (8 * place)) & 0xFF).to(torch.uint8) for place in range(width)], dim)
