"""Keys and values as integer codes, and codes as bits without gaps.

    code = clamp(round(x / s) + z, 0, 2^Q - 1),   x_hat = (code - z) s

One grid per token and head, spanning [min(x, 0), max(x, 0)] in 2^Q - 1 steps, so that zero is exact; codes are chosen
for the scale as it is stored, in half precision. A token's codes follow from its own keys and values alone, whatever
else is in the batch or in the cache.

Shapes: N tokens, H heads (of keys and of values), D head size, C codes a token, Q bits.
"""

from __future__ import annotations

import torch

from testbed.models.kv_format import KVFormat

_LEAST_SCALE, _LARGEST_SCALE = 2.0**-24, 65504.0  # of half precision
_BUNDLE = 8  # codes: Q whole bytes


def encode(states_NHD: torch.Tensor, fmt: KVFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """Records [N, bytes] uint8 and scales [N, H] float16.

    Spans beyond half precision saturate. A NaN makes its token's head NaN when it is read, as it would unquantised.
    """
    states_NHD = states_NHD.float()
    low, high = states_NHD.amin(-1).clamp(max=0), states_NHD.amax(-1).clamp(min=0)
    most = float(2**fmt.bits - 1)
    spans = ((high - low) / most).clamp(_LEAST_SCALE, _LARGEST_SCALE)
    zeros_NH = (-torch.round(low / spans)).clamp(0, most)
    scales_NH = spans.half()
    steps = torch.round(states_NHD * (1.0 / scales_NH.float())[..., None])
    codes_NHD = (steps + zeros_NH[..., None]).clamp(0, most)
    both = torch.cat([codes_NHD, zeros_NH[..., None]], -1).nan_to_num(0)
    return pack(both.to(torch.uint8).flatten(1), fmt.bits), scales_NH


def decode(records: torch.Tensor, scales_NH: torch.Tensor, head_dim: int, fmt: KVFormat) -> torch.Tensor:
    """Keys and values [N, H, D] float32 that records stand for."""
    num_tokens, num_heads = scales_NH.shape
    codes = unpack(records, num_heads * (head_dim + 1), fmt.bits).view(num_tokens, num_heads, head_dim + 1)
    states_NHD: torch.Tensor = codes[..., :-1].float() - codes[..., -1:].float()
    return states_NHD * scales_NH.float()[..., None]


def pack(codes_NC: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes below 2^Q as [N, ceil(C Q / 8)] bytes: a row is one stream of bits, lowest first."""
    rows, columns = codes_NC.shape
    codes = torch.nn.functional.pad(codes_NC, (0, -columns % _BUNDLE)).view(rows, -1, _BUNDLE)
    packed = codes.new_zeros((rows, codes.shape[1], bits))
    for place in range(_BUNDLE):
        byte, shift = divmod(place * bits, 8)
        packed[..., byte] |= codes[..., place] << shift  # bits beyond the byte fall off
        if shift + bits > 8:  # noqa: PLR2004 - bits of a byte
            packed[..., byte + 1] |= codes[..., place] >> (8 - shift)
    return packed.flatten(1)[:, : -(-columns * bits // 8)]


def unpack(packed_NB: torch.Tensor, columns: int, bits: int) -> torch.Tensor:
    """The codes [N, C] uint8 of packed rows."""
    rows, num_bytes = packed_NB.shape
    packed = torch.nn.functional.pad(packed_NB, (0, -num_bytes % bits)).view(rows, -1, bits)
    codes = packed.new_empty((rows, packed.shape[1], _BUNDLE))
    for place in range(_BUNDLE):
        byte, shift = divmod(place * bits, 8)
        code = packed[..., byte] >> shift
        if shift + bits > 8:  # noqa: PLR2004 - bits of a byte
            code = code | packed[..., byte + 1] << (8 - shift)
        codes[..., place] = code & ((1 << bits) - 1)
    return codes.flatten(1)[:, :columns]
