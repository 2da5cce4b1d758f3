"""One scenario on both engines, each with all that it leaves: rows of requests, iterations, accounts."""

from __future__ import annotations

from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from testbed.core.events import HOPS, IterationEnded, RequestAdmitted, SpanEnded
from testbed.core.request_row import (
    ADMITTED_NS,
    CODEC,
    CURRENT_CODEC,
    REASON,
    REQUEST,
    SERVER,
    SPLIT,
    WIDTH,
)
from testbed.results.rows import RequestRows
from testbed.sim.cohort.accounts import device_ends, link_ends, server_ends
from testbed.sim.cohort.build import codec_names
from testbed.sim.cohort.engine import CohortRun, Results
from testbed.sim.cohort.state import REASONS
from tests.sim_runs import TINY_SOURCE, run_world, table_of


class Left(NamedTuple):
    end_ns: int
    requests: list[list[int]]
    iterations: list[tuple[int, ...]]
    devices: list[dict[str, object]]
    links: list[dict[str, object]]
    servers: list[dict[str, object]]


def by_requests(built) -> Left:
    world, events = run_world(built)
    rows = RequestRows()
    takes = {"RequestArrived": "arrived", "TokenDelivered": "token", "TransferEnded": "transfer"}
    takes |= {"RequestEnded": "ended"}
    iterations = []
    for event in events:
        if isinstance(event, IterationEnded):
            counted = (event.num_sequences, event.prefill_tokens, event.decode_tokens, event.kv_tokens)
            place = (event.server, event.iteration, event.start_ns, event.time_ns)
            iterations.append((*place, *counted, event.num_waiting))
        elif isinstance(event, SpanEnded):
            rows.cells[rows.base[event.request] + HOPS.index(event.hop)] += event.end_ns - event.start_ns
        elif isinstance(event, RequestAdmitted):
            cells, base = rows.cells, rows.base[event.request]
            cells[base + ADMITTED_NS], cells[base + SPLIT], cells[base + SERVER] = (
                event.time_ns,
                event.split,
                event.server,
            )
            cells[base + CODEC] = cells[base + CURRENT_CODEC] = rows.codec_number(event.codec)
        else:
            getattr(rows, takes[type(event).__name__])(event)
    end_ns = world.clock.now_ns
    return Left(
        end_ns=end_ns,
        requests=_named(rows.table(), list(rows.codecs), list(rows.reasons), built),
        iterations=sorted(iterations),
        devices=[asdict(device.end(end_ns)) for device in world.devices],
        links=[asdict(end) for device in world.devices for end in device.link_ends()],
        servers=[asdict(end) for end in world.server_ends(end_ns)],
    )


def by_cohorts(built) -> Left:
    finished: list[np.ndarray] = []
    iterations: list[np.ndarray] = []
    results = Results(lambda rows: finished.append(rows.copy()), lambda rows: iterations.append(rows.copy()))
    run = CohortRun(built, TINY_SOURCE, table_of(built), results)
    run.run()
    rows = np.concatenate([np.zeros((0, WIDTH), np.int64), *finished])
    names = codec_names(built, TINY_SOURCE.shape.num_layers)
    return Left(
        end_ns=run.now_ns,
        requests=_named(rows[np.argsort(rows[:, REQUEST])], names, REASONS, built),
        iterations=sorted(map(tuple, np.concatenate(iterations).tolist())) if iterations else [],
        devices=[asdict(end) for end in device_ends(built, run.memory, run.now_ns)],
        links=[asdict(end) for end in link_ends(built, run.memory)],
        servers=[asdict(end) for end in server_ends(built, run.memory, run.now_ns)],
    )


def _named(rows, codecs, reasons, built):
    """Rows whose codecs and reasons are numbered alike."""
    names = [*codec_names(built, TINY_SOURCE.shape.num_layers), None]
    table = rows.tolist()
    for row in table:
        for cell in (CODEC, CURRENT_CODEC):
            row[cell] = names[row[cell]] if codecs == names[:-1] else ([*codecs, None][row[cell]])
        row[REASON] = reasons[row[REASON]]
    return table
