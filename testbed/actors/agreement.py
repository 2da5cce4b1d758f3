"""What the sessions of a run agree on at their start, worked out once before it: codecs, and what these need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from testbed.actors.calls import HostSpec
from testbed.codecs.agreed import agree, needs_agreement


def agreed_spec(spec: HostSpec, choices: Iterable[tuple[str, int]]) -> HostSpec:
    """The spec of hosts whose sessions may use these (codec setting, split) and no others.

    A codec that needs an agreement gets it from the hidden states at that cut when the front, at its own precision,
    reads the calibration text.
    """
    pairs = tuple(choices)
    needy = [pair for pair in pairs if needs_agreement(pair[0])]
    if not needy:
        return replace(spec, codecs=pairs)
    from testbed.actors.host_shards import HostShards  # noqa: PLC0415 - loads torch, only where states are needed
    from testbed.models.threads import one_thread  # noqa: PLC0415 - the same

    with one_thread():
        shards = HostShards(spec, "cpu")
        states_ND = {split: np.concatenate(shards.calibration_states(split)) for split in {split for _, split in needy}}
    found = {(setting, split): agree(setting, states_ND[split]) for setting, split in needy}
    agreed = {pair: agreement for pair, agreement in found.items() if agreement is not None}
    return replace(spec, codecs=pairs, agreed=agreed)
