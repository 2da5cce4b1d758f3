"""`testbed workload` and the examples of its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from testbed.core.registry import ARRIVALS
from testbed.scenarios.load import build_scenario
from tests.unit.tiny_scenario import call, tiny, write

PAGE = Path(__file__).parents[2] / "docs/workloads.md"


def test_what_was_drawn_stands_beside_what_was_expected(tmp_path: Path) -> None:
    asks = {
        "arrivals": {"kind": "poisson", "rate": "4 /s", "until": "1000 s"},
        "prompts": {"kind": "random", "length": {"law": "uniform", "low": 1, "high": 9}},
        "output_tokens": {"law": "geometric", "mean": 30, "max": 100_000},
        "kinds": [
            {"name": "talk", "share": 0.25, "session": {
                "turns": {"law": "fixed", "value": 3}, "think": {"law": "fixed", "value": "1 s"}}},
            {"name": "code", "share": 0.75},
        ],
    }  # fmt: skip
    file = write(tmp_path / "s.yaml", tiny(("workload", asks)))
    done = call("workload", file, "--json")
    assert (done.code, done.err) == (0, "")
    talk, code = json.loads(done.out)
    assert (talk["expected_openings"], code["expected_openings"]) == (1000, 3000)
    assert talk["openings"] == pytest.approx(1000, abs=4.5 * 1000**0.5)
    assert talk["requests"] == 3 * talk["openings"]
    assert code["requests"] == code["openings"]
    assert (code["expected_new_tokens"], code["expected_output_tokens"]) == (5, pytest.approx(30))
    assert code["mean_new_tokens"] == pytest.approx(5, abs=0.3)
    assert talk["mean_prompt_tokens"] == pytest.approx(5 + 35, abs=3)  # before turns 0, 1, 2: nothing, 35, 70 tokens
    first, second = call("workload", file).out.splitlines()
    assert first.startswith(f"pis, talk: poisson, {talk['openings']:,} (1,000) arrivals that open {talk['requests']}")
    assert second.startswith(f"pis, code: poisson, {code['openings']:,} (3,000) arrivals from ")
    assert "outputs of" in second


def test_a_trace_states_no_mean(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "t,in,out\n0,5,6\n1,7,8\n")
    trace = {"kind": "trace", "file": "t.csv", "time_column": "t", "prompt_column": "in", "output_column": "out"}
    done = call("workload", write(tmp_path / "s.yaml", tiny(("workload.arrivals", trace))))
    assert done.out == "pis: trace, 2 arrivals from 0 s to 1.00 s; prompts of 6 tokens, outputs of 7\n"


def test_the_pages_examples_are_scenarios(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        build_scenario({**tiny(), **yaml.safe_load(block)}, base=tmp_path)


def test_the_page_describes_every_law_with_all_its_keys() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Arrivals")[2].splitlines()
    for name in ARRIVALS:
        line = next(line for line in section if line.startswith(f"| `{name}` |"))
        keys = set(ARRIVALS.load(name).Config.model_fields) - {"kind", "rate", "rate_per_device"}
        assert keys <= set(re.findall(r"`([a-z_]+)[`:]", line.split("|")[2])), name
