"""One link alone under a plain load: equal messages at equal distances, or each when the one before has ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.core.units import BITS_PER_BYTE, NS_PER_S
from testbed.network_models.build import one_way, resolution
from testbed.network_models.exercise import Sent, exercise, exercise_in_turn
from testbed.network_models.transfer import Direction, Fate, LinkSnapshot, Transfer
from testbed.scenarios.profiles import LinkProfile

PARTS = ("connect", "window", "queue", "serialise", "retransmit", "propagate", "jitter")
PERCENTILES = (50, 95, 99)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`every_ns` None: a message is sent when the one before has ended."""

    num_messages: int
    payload_bytes: int
    every_ns: int | None
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of every message."""

    profile: LinkProfile
    load: Load
    transfers: list[Transfer]
    account: LinkSnapshot

    @property
    def sent_s(self) -> FloatArray:
        return np.array([transfer.sent_ns for transfer in self.transfers]) / NS_PER_S

    @property
    def ended_s(self) -> FloatArray:
        return np.array([transfer.ended_ns for transfer in self.transfers]) / NS_PER_S

    @property
    def delay_s(self) -> FloatArray:
        """From handing over to the end, delivered or not."""
        return self.ended_s - self.sent_s

    @property
    def delivered(self) -> npt.NDArray[np.bool_]:
        return np.array([transfer.delivered for transfer in self.transfers], dtype=np.bool_)


def run_trial(profile: LinkProfile, load: Load, seed: int) -> Trial:
    """Send the load over a fresh link until every message has ended."""
    make = partial(one_way, profile=profile, direction=load.direction, entity=0, seed=seed)
    if load.every_ns is None:
        transfers, account = exercise_in_turn(make, [load.payload_bytes] * load.num_messages)
    else:
        times = range(0, load.num_messages * load.every_ns, load.every_ns)
        transfers, account = exercise(make, [Sent(time_ns, load.payload_bytes) for time_ns in times])
    return Trial(profile=profile, load=load, transfers=transfers, account=account)


def trial_summary(trial: Trial) -> dict[str, Any]:
    """Plain data: counts, delay and goodput of the delivered messages, mean time by part."""
    delivered = trial.delivered
    duration_s = float(trial.ended_s.max())
    counters = {key: value for key, value in asdict(trial.account).items() if "backlog" not in key}
    kept = [transfer for transfer in trial.transfers if transfer.delivered]
    return {
        "link": trial.profile.name,
        "direction": trial.load.direction.value,
        "resolution": resolution(trial.profile),
        "transport": trial.profile.transport.kind,
        "duration_s": duration_s,
        **{fate.value: sum(transfer.fate is fate for transfer in trial.transfers) for fate in Fate},
        "corrupt": sum(transfer.is_corrupt for transfer in trial.transfers),
        "delay_s": _spread(trial.delay_s[delivered]),
        "goodput_bps": trial.account.delivered_payload_bytes * BITS_PER_BYTE / duration_s if duration_s else None,
        "packet_loss": _share(trial.account.lost_packets, trial.account.packets + trial.account.retransmissions),
        "packet_drops": _share(trial.account.dropped_packets, trial.account.packets + trial.account.retransmissions),
        "utilisation": trial.account.busy_ns / NS_PER_S / duration_s if duration_s else None,
        "peak_backlog_bytes": trial.account.peak_backlog_bytes,
        "mean_part_s": {
            part: sum(getattr(transfer, f"{part}_ns") for transfer in kept) / len(kept) / NS_PER_S if kept else None
            for part in PARTS
        },
        "account": counters,
    }


def _spread(values: FloatArray) -> dict[str, float] | None:
    if not values.size:
        return None
    percentiles = {f"p{rank}": float(np.percentile(values, rank)) for rank in PERCENTILES}
    return {"mean": float(values.mean()), **percentiles, "max": float(values.max())}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
