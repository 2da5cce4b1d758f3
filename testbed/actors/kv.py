"""What keys and values take: packed in a format, or plain at a number of bits a value."""

from __future__ import annotations

from testbed.models.kv_format import KVFormat
from testbed.models.shape import ModelShape
from testbed.scenarios.kv import KV

KVLaw = KVFormat | float


def kv_laws(kv: KV | None, plain_bits: float) -> tuple[KVLaw, KVLaw]:
    """The law of a front's keys and values, and that of a back's."""
    front, back = (None, None) if kv is None else (kv.front_bits, kv.back_bits)
    return _law(front, plain_bits), _law(back, plain_bits)


def kv_bytes(shape: ModelShape, tokens: int, start: int, stop: int, law: KVLaw) -> int:
    """Keys and values of `tokens` tokens in layers [start, stop), scales and zero points included.

    An upper bound for sliding-window layers, which keep no more than the window.
    """
    if isinstance(law, KVFormat):
        return law.kv_bytes(shape, tokens, start, stop)
    return shape.kv_bytes(tokens, start, stop, law)


def code_bits(law: KVLaw) -> float:
    """Bits of a value alone, as the method's formulas count them."""
    return law.bits if isinstance(law, KVFormat) else law


def _law(bits: int | None, plain_bits: float) -> KVLaw:
    return plain_bits if bits is None else KVFormat(bits=bits)
