"""A codec as a line of stages: split off what is large, quantise the rest, code the symbols, wrap it in a message.

In full: centre, threshold, rotate, quantise, code. What the threshold splits off is put back last and bit for bit, so
it is tested before a rotation that would mix it into its neighbours.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from testbed.codecs.agreed import NOTHING, Agreed
from testbed.codecs.agreed_rans import TableCounter
from testbed.codecs.centring import Centring
from testbed.codecs.compiling import kernels, torch_kernels
from testbed.codecs.effort import CENTRE, ONE_PASS, ROTATION, THRESHOLD, Effort
from testbed.codecs.entropy import CODERS, NONE, EntropyCoder, Sections
from testbed.codecs.framing import (
    CRC_BYTES,
    HEADER_BYTES,
    NOBODY,
    OVERHEAD_BYTES,
    CodecError,
    Envelope,
    F32Array,
    Header,
    U8Array,
    check_shape,
    checked,
    unpack_header,
)
from testbed.codecs.reference import below, num_above
from testbed.codecs.rotation import Rotation
from testbed.codecs.sparse import Sparse, Threshold, bits_of, read_sparse, sparse_nbytes, sparse_section
from testbed.codecs.stages import INFINITY_BITS, Stage
from testbed.codecs.tables import Tables

if TYPE_CHECKING:
    import torch

_NO_TAU = np.float32(np.inf)


class ByteCounts(NamedTuple):
    """Bytes of a message by what they hold: header and checksum, values split off, scales and widths, the rest."""

    frame: int
    sparse: int
    side: int
    payload: int


class Pipeline:
    """A stage, perhaps centring, a threshold and a rotation, in this order, before it, and an entropy coder behind it.

    `agreed` is what the session agreed on. Without it a codec that needs it can tell sizes, and refuses the rest.
    `modelled_bits` and `modelled_above` state what a modelled device's values take, in bits each before sparse values,
    and which share of them is split off: figures measured on real hidden states. Without them the size of a modelled
    message is the stage's upper bound, and the threshold's own share.
    """

    def __init__(
        self,
        stage: Stage,
        entropy: EntropyCoder,
        *,
        threshold: Threshold | None = None,
        centre: bool = False,
        rotation: Rotation | None = None,
        agreed: Agreed | None = None,
        modelled_bits: float | None = None,
        modelled_above: float | None = None,
    ) -> None:
        self.is_fixed_size = stage.is_fixed_size and threshold is None and entropy.coder == NONE
        self.effort = _effort(stage, entropy, threshold=threshold, centre=centre, rotation=rotation)
        self._stage = stage
        self._entropy = entropy
        self._threshold = threshold
        self._agreed = agreed or NOTHING
        self._rotation = rotation
        self._crc_start = self._agreed.digest if rotation is None else rotation.crc_start(self._agreed.digest)
        self._centring = Centring(self._agreed.means) if centre else None
        self._modelled_bits = modelled_bits
        self._modelled_above = modelled_above

    def encode(self, hidden_ND: F32Array, envelope: Envelope = NOBODY) -> bytes:
        return self._message(checked(hidden_ND), envelope)

    def encode_tensor(self, hidden_ND: torch.Tensor, envelope: Envelope = NOBODY) -> bytes:
        """The message that `encode` makes of the same values, computed where they lie as far as there are kernels.

        TAB-Q and uniform grids run there, with centring and an absolute threshold before; all else on the host.
        """
        device = torch_kernels()
        values_ND = device.as_float32(hidden_ND)
        if not self._runs_on_devices or not values_ND.numel():
            return self.encode(device.on_host(values_ND), envelope)
        check_shape(*values_ND.shape)
        return self._message(values_ND, envelope)

    @property
    def _runs_on_devices(self) -> bool:
        is_absolute = self._threshold is None or self._threshold.is_absolute
        return self._stage.takes_tensors and self._rotation is None and is_absolute

    def _message(self, hidden_ND: F32Array, envelope: Envelope) -> bytes:
        """The message of hidden states, on the host or as a tensor."""
        seen_ND = hidden_ND if self._centring is None else self._centring.centred(hidden_ND)
        tau = _NO_TAU if self._threshold is None else self._threshold.of(seen_ND)
        tau_bits = bits_of(tau)
        side, payload, coder, num_above = self._coded(seen_ND, tau_bits)
        if num_above and self._threshold is None:
            raise CodecError("quantisation has no code for NaN or infinity")
        sparse, is_half = sparse_section(seen_ND, tau_bits, hidden_ND) if num_above else ([], False)
        header = Header(
            envelope=envelope,
            num_tokens=hidden_ND.shape[0],
            hidden_size=hidden_ND.shape[1],
            stage=self._stage.stage_id,
            entropy=coder,
            has_sparse=num_above > 0,
            half_sparse=is_half,
            tau=float(tau),
            is_rotated=self._rotation is not None,
        )
        return _sealed([header.pack(), *sparse, side, *payload], self._crc_start)

    def _coded(self, seen_ND: F32Array, tau_bits: int) -> Sections:
        """The stage's sections, of what lies below the threshold."""
        if self._rotation is None:
            return self._entropy.encode(self._stage, seen_ND, tau_bits)
        above = num_above(seen_ND, tau_bits)
        below_ND = below(seen_ND, tau_bits) if above else seen_ND
        sections = self._entropy.encode(self._stage, self._rotation.rotated(below_ND), INFINITY_BITS)
        return sections._replace(num_above=above)

    def decode(self, message: bytes, envelope: Envelope | None = None) -> F32Array:
        header = unpack_header(message)
        data = np.frombuffer(message, np.uint8)
        if kernels().crc32c(data[:-CRC_BYTES], self._crc_start) != int.from_bytes(message[-CRC_BYTES:], "little"):
            raise CodecError("the checksum is not the message's, or the session agreed on something else")
        self._check(header, envelope)
        return self._decoded(header, data[HEADER_BYTES:-CRC_BYTES])

    def byte_counts(self, message: bytes) -> ByteCounts:
        """Where the bytes of a message of this codec went; `message` is one that `decode` takes."""
        header = unpack_header(message)
        body, sparse_bytes = np.frombuffer(message, np.uint8)[HEADER_BYTES:-CRC_BYTES], 0
        if header.has_sparse:
            shape = (header.num_tokens, header.hidden_size)
            sparse_bytes = read_sparse(body, *shape, is_half=header.half_sparse, tau=header.tau).size_bytes
        side_bytes = self._stage.side_nbytes(header.num_tokens)
        return ByteCounts(OVERHEAD_BYTES, sparse_bytes, side_bytes, body.size - sparse_bytes - side_bytes)

    def tables_for(self, hidden_ND: F32Array, num_groups: int) -> Tables:
        """Tables for the entropy coder, counted on samples that go all the way of a message."""
        counter, counting = TableCounter(num_groups), copy(self)
        counting._entropy = counter
        counting.encode(hidden_ND)
        return counter.tables

    def nbytes(self, num_tokens: int, hidden_size: int) -> int:
        if self._modelled_bits is None:
            rest = self._stage.nbytes_bound(num_tokens, hidden_size)
        else:
            values_bits = self._modelled_bits * num_tokens * hidden_size
            rest = self._stage.side_nbytes(num_tokens) + -int(-values_bits // 8)
        share = self._share(hidden_size)
        num_above = round(share * num_tokens * hidden_size)
        return OVERHEAD_BYTES + rest + sparse_nbytes(num_tokens, hidden_size, num_above)

    def nbytes_bound(self, num_tokens: int, hidden_size: int) -> int:
        num_above = num_tokens * hidden_size if self._threshold is not None else 0
        rest = self._stage.nbytes_bound(num_tokens, hidden_size)
        return OVERHEAD_BYTES + rest + sparse_nbytes(num_tokens, hidden_size, num_above)

    def _share(self, hidden_size: int) -> float:
        if self._threshold is None:
            return 0.0
        return self._threshold.expected_share(hidden_size) if self._modelled_above is None else self._modelled_above

    def _check(self, header: Header, envelope: Envelope | None) -> None:
        is_ours = header.stage == self._stage.stage_id and header.is_rotated == (self._rotation is not None)
        if not is_ours or header.entropy not in {NONE, self._entropy.coder}:
            raise CodecError("the message was made by another codec than the session agreed on")
        if (header.has_sparse and self._threshold is None) or (header.half_sparse and not header.has_sparse):
            raise CodecError("the message has sparse values that the session did not agree on")
        if envelope is not None and header.envelope != envelope:
            raise CodecError(f"the message is for {header.envelope}, and {envelope} is expected")

    def _decoded(self, header: Header, body: U8Array) -> F32Array:
        num_tokens, hidden_size, sparse = header.num_tokens, header.hidden_size, None
        if header.has_sparse:
            sparse = read_sparse(body, num_tokens, hidden_size, is_half=header.half_sparse, tau=header.tau)
            body = body[sparse.size_bytes :]
        side_bytes = self._stage.side_nbytes(num_tokens)
        if body.size < side_bytes:
            raise CodecError(f"the side information of {num_tokens} tokens takes {side_bytes} bytes")
        coder = self._entropy if header.entropy == self._entropy.coder else CODERS[NONE]
        side = self._stage.read_side(body[:side_bytes], num_tokens)
        hidden_ND = coder.decode(self._stage, side, body[side_bytes:], num_tokens, hidden_size)
        if self._rotation is not None:
            hidden_ND = self._rotation.restored(hidden_ND)
        if self._centring is not None:
            hidden_ND = self._centring.restored(hidden_ND)
        if sparse is not None:
            self._put(sparse, hidden_ND)
        return hidden_ND

    def _put(self, sparse: Sparse, hidden_ND: F32Array) -> None:
        if self._centring is None:
            sparse.put(hidden_ND, sparse.tau_bits)
        else:
            self._centring.put(sparse, hidden_ND)


def _effort(
    stage: Stage, entropy: EntropyCoder, *, threshold: Threshold | None, centre: bool, rotation: Rotation | None
) -> Effort:
    total = stage.effort + entropy.effort
    if threshold is not None and stage.effort == ONE_PASS:
        total += THRESHOLD
    if centre:
        total += CENTRE
    return total if rotation is None else total + ROTATION


def _sealed(parts: list[bytes | U8Array], crc_start: int) -> bytes:
    body = b"".join([part if isinstance(part, bytes) else part.data for part in parts])
    crc = kernels().crc32c(np.frombuffer(body, np.uint8), crc_start)
    return body + crc.to_bytes(CRC_BYTES, "little")


__all__ = ["INFINITY_BITS", "Pipeline"]
