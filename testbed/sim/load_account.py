"""What a scenario's requests amount to: drawn, beside what their laws let expect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from testbed.core.registry import ARRIVALS
from testbed.core.rng import I64Array
from testbed.core.units import NS_PER_S
from testbed.scenarios.prompts import RandomPrompts
from testbed.scenarios.schema import Scenario
from testbed.scenarios.workload import RequestKind, Workload
from testbed.sim.request_table import RequestTable
from testbed.workloads.lengths import length_law
from testbed.workloads.members import Members


def load_account(scenario: Scenario, requests: RequestTable) -> list[dict[str, Any]]:
    """A row a group and kind of request; a mean that no law states is None."""
    return [row for group in range(len(scenario.fleet)) for row in _group_rows(scenario, requests, group)]


def _group_rows(scenario: Scenario, requests: RequestTable, index: int) -> Iterator[dict[str, Any]]:
    group, workload = scenario.fleet[index], scenario.workload_of(scenario.fleet[index])
    members = Members.of(group.name, group.count, scenario.seed)
    expected = ARRIVALS.load(workload.arrivals.kind)(workload.arrivals).expected_count(members)
    of_group = requests.group == index
    for number, kind in enumerate(workload.request_kinds):
        own = of_group & (requests.kind == number)
        times_s = requests.arrival_ns[own] / NS_PER_S
        yield {
            "group": group.name,
            "kind": kind.name,
            "arrivals": workload.arrivals.kind,
            "openings": int((requests.turn[own] == 0).sum()),
            "expected_openings": _share(kind, expected),
            "requests": int(own.sum()),
            "first_s": float(times_s.min()) if len(times_s) else None,
            "last_s": float(times_s.max()) if len(times_s) else None,
            **_lengths(workload, kind, requests, np.flatnonzero(own)),
        }


def _share(kind: RequestKind, expected: float | None) -> float | None:
    """Of the expected openings, where the kind's share of them stays the same."""
    shares = {share for _, share in kind.points}
    return None if expected is None or len(shares) > 1 else expected * shares.pop()


def _lengths(workload: Workload, kind: RequestKind, requests: RequestTable, own: I64Array) -> dict[str, Any]:
    new = requests.prompt_tokens[own] - requests.history_tokens[own]
    prompts, is_cut = kind.prompts, kind.session is not None and kind.session.max_tokens is not None
    by_law = not (workload.arrivals.sets_lengths or is_cut)  # turns that are not asked are the longer ones
    prompt = length_law(prompts.length).mean if by_law and isinstance(prompts, RandomPrompts) else None
    output = length_law(kind.output_tokens).mean if by_law and kind.output_tokens is not None else None
    return {
        "mean_new_tokens": float(new.mean()) if len(own) else None,
        "expected_new_tokens": prompt,
        "mean_prompt_tokens": float(requests.prompt_tokens[own].mean()) if len(own) else None,
        "mean_output_tokens": float(requests.max_output_tokens[own].mean()) if len(own) else None,
        "expected_output_tokens": output,
    }
