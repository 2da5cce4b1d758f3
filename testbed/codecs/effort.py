"""How much work coding is, in passes over the memory that values and bytes take: what virtual times are made of.

    t = launch + passes * (raw bytes + encoded bytes) / memory bandwidth          [our design]

One pass is what a bare per-row quantiser takes, the yardstick of `make bench`; fixed formats count as that.
The others are our compiled kernels on one core as multiples of it, on 512 x 4096 values (docs/codecs.md): a processor
with half the bandwidth is taken to need twice the time for all of them. Modelled, and rough where arithmetic and not
memory is the limit, as for rANS.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Passes in percent, whole numbers so that virtual times stay exact."""

    encode_percent: int
    decode_percent: int

    def __add__(self, other: Effort) -> Effort:
        """One after the other."""
        return Effort(
            encode_percent=self.encode_percent + other.encode_percent,
            decode_percent=self.decode_percent + other.decode_percent,
        )


NOTHING = Effort(encode_percent=0, decode_percent=0)
ONE_PASS = Effort(encode_percent=100, decode_percent=100)
# make bench: bare quantiser 6,700 MB/s; TS + TAB-Q 3,050 encoding and 5,540 decoding, with rANS 1,065 and 2,090.
TABQ = Effort(encode_percent=220, decode_percent=120)
RANS_CODING = Effort(encode_percent=410, decode_percent=200)
# Measured beside it in the same way, as what each adds.
ZSTD_CODING = Effort(encode_percent=110, decode_percent=80)
ASYMMETRIC_TABQ = Effort(encode_percent=450, decode_percent=120)
CENTRE = Effort(encode_percent=70, decode_percent=40)
ROTATION = Effort(encode_percent=510, decode_percent=310)
THRESHOLD = Effort(encode_percent=100, decode_percent=0)  # before a fixed format; TAB-Q's kernel tests as it goes
