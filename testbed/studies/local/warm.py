"""What a process runs before its clock counts: lazy loading, compiled kernels, first allocations."""

from __future__ import annotations

import numpy as np

from testbed.actors.calls import BackCall, BackItem, CloseCall, FrontCall
from testbed.codecs.framing import Envelope
from testbed.codecs.named import make_codec
from testbed.studies.local.back_server import BackServer
from testbed.studies.local.front_devices import FrontDevices
from testbed.studies.local.plan import DevicesPlan, ServerPlan

_ROUNDS, _PROMPT, _SESSION = 8, 12, 2**31


def warm_back(server: BackServer, plan: ServerPlan) -> None:
    """Some passes of a batch through every cut and codec."""
    pairs = sorted({(planned.split, planned.codec) for planned in plan.devices})
    width = plan.spec.source.shape.hidden_size
    for split, codec in pairs:
        made = make_codec(codec, plan.spec.agreed.get((codec, split)))
        sessions = range(_SESSION, _SESSION + min(4, plan.servers.max_batch))
        past = 0
        for step in range(_ROUNDS):
            new = _PROMPT if step == 0 else 1
            hidden_ND = np.random.default_rng(step).standard_normal((new, width)).astype(np.float32)
            items = tuple(
                BackItem(
                    session=session,
                    sampling_seed=0,
                    split=split,
                    codec=codec,
                    message=made.encode(hidden_ND, Envelope(session, past, split)),
                )
                for session in sessions
            )
            server.host.execute([BackCall(items=items)])
            past += new
        server.host.execute([CloseCall(session=session) for session in sessions])


def warm_front(devices: FrontDevices, plan: DevicesPlan) -> None:
    """Some passes through every cut and codec."""
    for split, codec in sorted({(planned.split, planned.codec) for planned in plan.devices}):
        for step in range(_ROUNDS):
            tokens = (1,) * (_PROMPT if step == 0 else 1)
            devices.host.execute([FrontCall(session=_SESSION, split=split, codec=codec, tokens=tokens)])
        devices.host.execute([CloseCall(session=_SESSION)])
