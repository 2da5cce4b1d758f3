"""Long transfers under random loss against the square-root law; `python -m tests.theory.square_root` prints the table.

Mathis, Semke, Mahdavi and Ott (1997): a Reno sender that loses a packet with probability p reaches
MSS / RTT * sqrt(3 / (2 b p)), b packets an acknowledgement counts for. Here every acknowledged byte counts, so b = 1
with delayed acknowledgements as well. The law is derived for evenly spaced losses and without time-outs: it fits from
p = 0.1 % to about 2 %, above which losses of repeats and of a window's end cost time-outs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from tests.connections import Chosen, run

CONFIDENCE = 0.99
ROUND_TRIP_S = 0.1
WARM_UP = 5  # batches: slow start
SEGMENT_BYTES = {"tcp": 1460, "quic": 1438}


class Row(NamedTuple):
    """Throughput of one transport at one loss, as a multiple of the law, with the half width of its interval."""

    kind: str
    p: float
    law_bps: float
    ratio: float
    half_width: float


def measure(kind: str, p: float, *, num_losses: int, batches: int = 40) -> Row:
    """Send back to back in `batches` equal messages about as many packets as lose `num_losses` on average."""
    segment_bytes = SEGMENT_BYTES[kind]
    size_bytes = round(num_losses / p / batches) * segment_bytes
    transfers, _ = run(
        {"kind": kind, "congestion": "reno"},
        *[(0, size_bytes)] * (WARM_UP + batches),
        loss=p,
        down=Chosen(),
        rate_up="1 Gbit/s",
        rate_down="1 Gbit/s",
        propagation_delay=f"{ROUND_TRIP_S / 2} s",
    )
    took_s = np.diff([transfer.ended_ns for transfer in transfers])[WARM_UP - 1 :] / 1e9
    law_bps = 8 * segment_bytes / ROUND_TRIP_S * math.sqrt(1.5 / p)
    ratio = 8 * size_bytes / float(took_s.mean()) / law_bps
    error = float(stats.sem(took_s) / took_s.mean() * stats.t.ppf((1 + CONFIDENCE) / 2, batches - 1))
    return Row(kind, p, law_bps, ratio, ratio * error)


def main() -> None:
    """Print the table of docs/results/network.md."""
    print("transport  loss    law, Mbit/s  measured / law")
    for kind in SEGMENT_BYTES:
        for p in (0.001, 0.005, 0.01, 0.02):
            row = measure(kind, p, num_losses=600)
            print(f"{kind:<9}  {p:5.1%}  {row.law_bps / 1e6:11.3f}  {row.ratio:.3f} ± {row.half_width:.3f}")


if __name__ == "__main__":
    main()
