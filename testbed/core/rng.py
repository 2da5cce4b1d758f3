"""Keyed randomness: a draw is a pure function of (seed, stream, entity, counter).

Order of execution, engine, process and the presence of other entities therefore can't change a draw, and two policies
run under the same seed meet the same channel (common random numbers). The mix is splitmix64's finaliser
(Steele, Lea, Flood 2014). Python ints and NumPy arrays give the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_TWO_53 = 2.0**-53
# For arrays: made once, because making one takes as long as a hundred draws
_U_GOLDEN, _U_M1, _U_M2 = np.uint64(_GOLDEN), np.uint64(_M1), np.uint64(_M2)
_U27, _U30, _U31, _U32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_FEW = 32  # draws: under this many, plain ints beat an array

U64Array = npt.NDArray[np.uint64]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]


def mix64(value: int) -> int:
    """splitmix64's finaliser: a bijection of 64-bit ints that passes avalanche tests."""
    value = ((value ^ (value >> 30)) * _M1) & MASK64
    value = ((value ^ (value >> 27)) * _M2) & MASK64
    return value ^ (value >> 31)


def _mix64_array(value: U64Array) -> U64Array:
    """`mix64`, in place."""
    _mix64_but_last(value)
    value ^= value >> _U31
    return value


def _mix64_but_last(value: U64Array) -> None:
    """All but its last shift, in place."""
    value ^= value >> _U30
    value *= _U_M1
    value ^= value >> _U27
    value *= _U_M2


def stream_key(seed: int, name: str) -> int:
    """64-bit key of a named stream; stable over processes, machines and hash seeds."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=(seed & MASK64).to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little")


def entity_key(group: str, place: int) -> int:
    """The entity of member `place` of a named group: what other groups there are, and how large, can't change it."""
    return stream_key(place, group)


def entity_keys(group: str, count: int) -> U64Array:
    """The entities of a group's members in their order."""
    name = group.encode()
    digests = (hashlib.blake2b(name, digest_size=8, key=place.to_bytes(8, "little")).digest() for place in range(count))
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


class Draws:
    """One entity's draws from a stream, by counter."""

    __slots__ = ("key",)

    def __init__(self, key: int) -> None:
        self.key = key

    def u64(self, counter: int) -> int:
        """Uniform 64-bit integer."""
        value = (self.key + (counter + 1) * _GOLDEN) & MASK64  # `mix64`, written out: this is done millions of times
        value = ((value ^ (value >> 30)) * _M1) & MASK64
        value = ((value ^ (value >> 27)) * _M2) & MASK64
        return value ^ (value >> 31)

    def u64_run(self, first_counter: int, count: int) -> U64Array:
        """`count` draws for consecutive counters, bit for bit what `u64` gives one by one."""
        values = np.arange(first_counter + 1, first_counter + 1 + count, dtype=np.uint64)
        values *= _U_GOLDEN
        values += np.uint64(self.key)
        return _mix64_array(values)

    def where_below(self, bound_u32: int, numbers: Sequence[int], base: int = 0) -> list[int]:
        """Those of `numbers` for which the draw of counter `base` + number has upper 32 bits below the bound.

        The bound is 1 to 2**32. Few numbers are drawn as plain ints, many as an array: the same bits.
        """
        if len(numbers) >= _FEW:
            return self._where_below_array(bound_u32, numbers, base)
        key, bound, found = self.key + (base + 1) * _GOLDEN, bound_u32 << 32, list[int]()
        for number in numbers:
            value = (key + number * _GOLDEN) & MASK64  # `mix64`, written out
            value = ((value ^ (value >> 30)) * _M1) & MASK64
            value = ((value ^ (value >> 27)) * _M2) & MASK64
            if value ^ (value >> 31) < bound:
                found.append(number)
        return found

    def _where_below_array(self, bound_u32: int, numbers: Sequence[int], base: int) -> list[int]:
        """Only draws whose upper 31 bits let it be are mixed to the end: the last step leaves those as they are."""
        counters = _as_array(numbers)
        values = counters * _U_GOLDEN
        values += np.uint64((self.key + (base + 1) * _GOLDEN) & MASK64)
        _mix64_but_last(values)
        places = (values <= np.uint64(((bound_u32 + 1) // 2 << 33) - 1)).nonzero()[0]
        values = values[places]
        values ^= values >> _U31
        below = values >> _U32 < np.uint64(bound_u32)
        found: list[int] = counters[places[below]].tolist()
        return found


def _as_array(numbers: Sequence[int]) -> U64Array:
    if isinstance(numbers, range):
        return np.arange(numbers.start, numbers.stop, numbers.step, dtype=np.uint64)
    return np.array(numbers, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Stream:
    """One named source of draws, such as ``link.up.loss``; `entity` says whose draw it is (see `entity_key`)."""

    key: int

    @classmethod
    def named(cls, seed: int, name: str) -> Stream:
        return cls(stream_key(seed, name))

    def of(self, entity: int) -> Draws:
        """One entity's draws alone."""
        return Draws(mix64((self.key + (entity + 1) * _GOLDEN) & MASK64))

    def u64(self, entity: int, counter: int) -> int:
        """Uniform 64-bit integer of this (entity, counter), both non-negative."""
        return self.of(entity).u64(counter)

    def u64_run(self, entity: int, first_counter: int, count: int) -> U64Array:
        """`count` draws for consecutive counters, bit for bit what `u64` gives one by one."""
        return self.of(entity).u64_run(first_counter, count)

    def u64_each(self, entities: U64Array, counters: I64Array) -> U64Array:
        """A draw for each pair, bit for bit what `u64` gives one by one."""
        golden, one = np.uint64(_GOLDEN), np.uint64(1)
        keys = _mix64_array(np.uint64(self.key) + (entities + one) * golden)
        return _mix64_array(keys + (counters.astype(np.uint64) + one) * golden)

    def uniform_each(self, entities: U64Array, counters: I64Array) -> F64Array:
        """As `uniform`, for each pair."""
        return (self.u64_each(entities, counters) >> np.uint64(11)).astype(np.float64) * _TWO_53

    def below_each(self, bound: int, entities: U64Array, counters: I64Array) -> I64Array:
        """As `below`, for each pair; `bound` is at most 2**32."""
        draws, half, times = self.u64_each(entities, counters), np.uint64(32), np.uint64(bound)
        carried = ((draws & np.uint64(0xFFFFFFFF)) * times) >> half
        return (((draws >> half) * times + carried) >> half).astype(np.int64)

    def uniform(self, entity: int, counter: int) -> float:
        """Uniform in [0, 1) with 53 bits."""
        return (self.u64(entity, counter) >> 11) * _TWO_53

    def below(self, bound: int, entity: int, counter: int) -> int:
        """Uniform integer in [0, bound); bias under bound / 2**64."""
        return (self.u64(entity, counter) * bound) >> 64


def probability_u32(probability: float) -> int:
    """Threshold t such that a uniform 32-bit draw is below t with this probability (resolution 2**-32)."""
    return round(probability * 2**32)
