"""What every codec at the cut must hold. Authors subclass `CodecContract` and name theirs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from testbed.codecs.framing import Codec, CodecError, Envelope, F32Array


class CodecContract:
    """Subclass as ``Test...`` with `make`; `relative_error` bounds a row's error over its largest value.

    `largest` is a magnitude that the codec still takes.
    """

    make: Callable[[], Codec]
    relative_error: float = 0.0
    largest: float = 3e38

    def states(self, num_tokens: int, hidden_size: int, seed: int = 0) -> F32Array:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((num_tokens, hidden_size)).astype(np.float32)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 96), (3, 7), (17, 128), (0, 8)])
    def test_size_law_holds(self, shape: tuple[int, int]) -> None:
        """Equal to the message where the codec says that its size is fixed; never exceeded elsewhere."""
        codec = self.make()
        outliers = np.full(shape, self.largest, np.float32)
        outliers[:, ::2] = -1e-30
        for states in (self.states(*shape), np.zeros(shape, np.float32), outliers):
            size = len(codec.encode(states))
            assert size <= codec.nbytes_bound(*shape)
            assert not codec.is_fixed_size or size == codec.nbytes(*shape) == codec.nbytes_bound(*shape)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 96), (3, 7), (17, 128), (0, 8)])
    def test_round_trip_is_within_its_bound(self, shape: tuple[int, int]) -> None:
        codec, states = self.make(), self.states(*shape)
        decoded = codec.decode(codec.encode(states))
        assert decoded.dtype == np.float32
        assert decoded.shape == states.shape
        peak_N = np.abs(states).max(axis=1, initial=0.0, keepdims=True)
        assert (np.abs(decoded - states) <= self.relative_error * peak_N).all()

    def test_equal_states_give_equal_bytes(self) -> None:
        states = self.states(4, 33)
        assert self.make().encode(states) == self.make().encode(states.copy())

    def test_rows_do_not_influence_each_other(self) -> None:
        codec, states = self.make(), self.states(6, 20)
        together = codec.decode(codec.encode(states))
        alone = np.vstack([codec.decode(codec.encode(row[None])) for row in states])
        np.testing.assert_array_equal(together, alone)

    def test_zero_rows_stay_zero(self) -> None:
        codec = self.make()
        assert not codec.decode(codec.encode(np.zeros((2, 9), np.float32))).any()

    def test_a_message_is_for_its_envelope_only(self) -> None:
        codec, envelope = self.make(), Envelope(session=7, position=12, split=3)
        message = codec.encode(self.states(2, 9), envelope)
        np.testing.assert_array_equal(codec.decode(message, envelope), codec.decode(message))
        for other in (Envelope(8, 12, 3), Envelope(7, 13, 3), Envelope(7, 12, 2)):
            with pytest.raises(CodecError):
                codec.decode(message, other)

    def test_every_flipped_bit_raises_the_typed_error(self) -> None:
        codec = self.make()
        message = codec.encode(self.states(2, 12))
        for bit in range(8 * len(message)):
            broken = bytearray(message)
            broken[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CodecError):
                codec.decode(bytes(broken))

    def test_wrong_lengths_raise_the_typed_error(self) -> None:
        codec = self.make()
        message = codec.encode(self.states(3, 10))
        for bad in (b"", message[:7], message[:-1], message + b"\0", b"\xff" * 8, b"\xff" * len(message)):
            with pytest.raises(CodecError):
                codec.decode(bad)

    def test_other_arrays_are_refused(self) -> None:
        with pytest.raises(CodecError):
            self.make().encode(np.zeros((2, 3, 4), np.float32))
        with pytest.raises(CodecError):
            self.make().encode(np.zeros((2, 3)))  # type: ignore[arg-type]
