"""A scenario file's way to one frozen value: read, overridden, resolved, written back, named by its fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.core.errors import ScenarioError
from testbed.run_folder import write_inputs
from testbed.scenarios.catalogue import entries
from testbed.scenarios.fingerprint import fingerprint
from testbed.scenarios.json_schema import scenario_json_schema
from testbed.scenarios.load import build_scenario, load_scenario
from testbed.scenarios.overrides import apply_overrides
from testbed.scenarios.schema import Scenario
from testbed.scenarios.yaml_file import parse_value, read_yaml, yaml_text
from tests.unit.tiny_scenario import TINY, tiny, write

HERE = Path()
ROOT = Path(__file__).parents[2]


def built(*changes: tuple[str, Any]) -> Scenario:
    return build_scenario(tiny(*changes), base=HERE)


def overridden(*overrides: str) -> Scenario:
    return build_scenario(apply_overrides(tiny(), overrides), base=HERE)


# ---- written and read back


@pytest.mark.parametrize("name", ["smoke", "demo", "stories"])
def test_a_resolved_scenario_reads_back_as_itself(name: str, tmp_path: Path) -> None:
    scenario = load_scenario(ROOT / "scenarios" / f"{name}.yaml")
    write_inputs(tmp_path, scenario, started="now")
    again = load_scenario(tmp_path / "scenario.yaml")
    assert again == scenario
    assert fingerprint(again) == fingerprint(scenario)
    assert yaml.safe_load((tmp_path / "scenario.yaml").read_text()) == scenario.as_data()


number = st.floats(min_value=1e-3, max_value=1e6, allow_nan=False).map(repr)


@settings(max_examples=40)
@given(
    rate=st.integers(1, 10**15),
    delay_ns=st.integers(0, 36_500 * 86_400 * 10**9),
    loss=st.floats(0, 0.999),
    others=st.tuples(number, number, number),
)
def test_every_quantity_survives_the_round_trip_to_the_last_bit(
    rate: int, delay_ns: int, loss: float, others: tuple[str, str, str]
) -> None:
    power, bandwidth, per_s = others
    link = {"use": "wifi", "rate_up": f"{rate} bit/s", "propagation_delay": f"{delay_ns} ns", "loss": loss}
    device = {"use": "raspberry-pi-5", "transmit_power": f"{power} W", "memory_bandwidth": f"{bandwidth} GB/s"}
    scenario = built(
        ("fleet.0.link", link), ("fleet.0.device", device), ("workload.arrivals.rate_per_device", f"{per_s} /s")
    )
    assert scenario.fleet[0].link.rate_up.rate == rate
    assert scenario.fleet[0].link.propagation_delay == delay_ns
    assert scenario.fleet[0].link.loss.p == loss
    again = build_scenario(yaml.safe_load(yaml_text(scenario.as_data())), base=HERE)
    assert again == scenario
    assert build_scenario(parse_value(yaml_text(scenario.as_data())), base=HERE) == scenario


@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
    | st.from_regex(r"\A[-+0-9._eExXoO:~<=nulyatrsfNY]{1,6}\Z")
)
def test_texts_survive_whatever_they_look_like(text: str) -> None:
    written = yaml_text({"description": text, "list": [text]})
    assert parse_value(written) == {"description": text, "list": [text]}
    assert yaml.safe_load(written) == {"description": text, "list": [text]}


# ---- YAML's traps


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("012", 12),
        ("0x1f", 31),
        ("1_000", 1000),
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("", None),
        ("~", None),
        ("20 Mbit/s", "20 Mbit/s"),
    ],
)
def test_plain_words_are_read_as_editors_read_them(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_a_merge_takes_over_what_the_mapping_does_not_give(tmp_path: Path) -> None:
    file = write(tmp_path / "x.yaml", "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(file)["b"] == {"x": 1, "y": 3}


def test_a_loss_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    text = yaml.safe_dump(TINY).replace("link: wifi", "link: {use: wifi, loss: 1e-3}")
    assert load_scenario(write(tmp_path / "s.yaml", text)).fleet[0].link.loss.p == 1e-3


# ---- fingerprint


def test_layout_and_spelling_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    plain = load_scenario(write(tmp_path / "a.yaml", tiny(("fleet.0.link", {"use": "wifi", "rate_up": "20 Mbit/s"}))))
    other = dict(reversed(tiny(("fleet.0.link", {"rate_up": "20000 kbit/s", "use": "wifi"})).items()))
    text = "# a comment\n" + yaml.safe_dump(other, sort_keys=False, default_flow_style=True)
    assert fingerprint(load_scenario(write(tmp_path / "b.yaml", text))) == fingerprint(plain)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("description", "in other words"),
        ("execution", {"executor": "ray", "edge_hosts": 4, "cloud_hosts": 2, "on_failure": "replay"}),
        ("record", {"spans": False, "quality": False}),
        ("fleet.0.link", {"use": "wifi", "description": "ours", "sources": {"loss": "measured"}}),
        ("fleet.0.count", 2),
        ("workload.arrivals.rate_per_device", "60 /min"),
        ("servers.0.max_batch", 32),
    ],
)
def test_what_changes_no_result_changes_no_fingerprint(path: str, value: Any) -> None:
    assert fingerprint(built((path, value))) == fingerprint(built())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 4),
        ("name", "other"),
        ("policy", "cloud-only"),
        ("policy.codec", "int4"),
        ("fleet.0.link", {"use": "wifi", "loss": 0.006}),
        ("fleet.0.count", 3),
        ("workload.output_tokens.value", 5),
        ("slo", {"ttft": "1 s", "tpot": "1 s"}),
        ("execution", {"costs": "measured"}),
    ],
)
def test_what_changes_a_result_changes_the_fingerprint(path: str, value: Any) -> None:
    assert fingerprint(built((path, value))) != fingerprint(built())


# ---- overrides


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("fleet.0.count=50", "fleet.0.count", 50),
        ("fleet.pis.count=50", "fleet.0.count", 50),
        ("fleet.pis.link.loss=0.02", "fleet.0.link.loss.p", 0.02),
        ("fleet.pis.link.loss=2 %", "fleet.0.link.loss.p", 0.02),
        ("fleet.0.link=lte", "fleet.0.link.name", "lte"),
        ("fleet.0.device=jetson-orin-nano", "fleet.0.device.name", "jetson-orin-nano"),
        ("servers.cloud.server.memory=40 GB", "servers.0.server.memory", 40 * 10**9),
        ("policy=cloud-only", "policy.kind", "cloud-only"),
        ("policy.codec=int4", "policy.codec", "int4"),
        ("policy={kind: static, split: 2}", "policy.split", 2),
        ("sampling.temperature=0.5", "sampling.temperature", 0.5),
        ("slo={ttft: 1 s, tpot: 100 ms}", "slo.tpot", 10**8),
        ("fleet.0.policy.kind=edge-only", "fleet.0.policy.kind", "edge-only"),
        (" seed = 9", "seed", 9),
        ("stop_at=3 s", "stop_at", 3 * 10**9),
        ("description=a=b", "description", "a=b"),
    ],
)
def test_an_override_sets_one_value(override: str, where: str, value: Any) -> None:
    node: Any = overridden(override)
    for key in where.split("."):
        node = node[int(key)] if key.isdecimal() else getattr(node, key)
    assert node == value


def test_overrides_are_applied_in_turn_and_leave_the_data_alone() -> None:
    data = tiny()
    changed = apply_overrides(data, ["policy=cloud-only", "policy=static", "policy.split=3", "slo.ttft=1 s"])
    assert changed["policy"] == {"kind": "static", "split": 3}
    assert changed["slo"] == {"ttft": "1 s"}
    assert data == TINY


def test_a_changed_number_is_the_scenarios_own() -> None:
    link = overridden("fleet.0.link.loss=0.5").fleet[0].link
    assert "loss" not in link.sources
    assert "rate_up" in link.sources


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("count", "an override reads path=value; allowed: for example fleet.0.count=50"),
        ("=3", "an override reads path=value; allowed: for example fleet.0.count=50"),
        ("fleet..count=3", "an override reads path=value; allowed: for example fleet.0.count=50"),
        ("fleet.7.count=3", "fleet.7: no such entry (got '7'); allowed: 0, pis"),
        ("fleet.-1.count=3", "fleet.-1: no such entry (got '-1'); allowed: 0, pis"),
        ("fleet.pi.count=3", "fleet.pi: no such entry (got 'pi'); allowed: 0, pis; did you mean 'pis'?"),
        ("seed.x=3", "seed.x: no such place: seed is neither a mapping nor a list (got 3)"),
        ("name.x.y=3", "name.x: no such place: name is neither a mapping nor a list (got 'tiny')"),
        ("seed=[1", "not a YAML value: "),
    ],
)
def test_a_bad_override_is_refused_by_its_own_words(override: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        apply_overrides(tiny(), [override])
    assert str(caught.value).startswith(f"-o {override}: {expected}")


def test_the_seed_of_the_call_wins(tmp_path: Path) -> None:
    file = write(tmp_path / "s.yaml", TINY)
    assert load_scenario(file, overrides=["seed=8"], seed=9).seed == 9
    assert load_scenario(file, overrides=["seed=8"]).seed == 8


# ---- what a scenario refers to


def test_own_catalogue_entries_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_scenario(write(tmp_path / "s.yaml", TINY)).fleet[0].link
    folder = tmp_path / "network_models" / "links"
    folder.mkdir(parents=True)
    slow = {"rate_up": "1 kbit/s", "rate_down": "2 kbit/s", "propagation_delay": "3 ms"}
    write(folder / "wifi.yaml", slow)
    write(folder / "new.yaml", slow)
    monkeypatch.chdir(tmp_path)
    own = load_scenario("s.yaml").fleet[0].link
    assert own.name == shipped.name == "wifi"
    assert own.rate_up.rate == 1000 != shipped.rate_up.rate
    assert load_scenario("s.yaml", overrides=["fleet.0.link=new"]).fleet[0].link.name == "new"
    assert {"new", "lte", "wifi"} <= set(entries("link"))


def test_a_scenario_is_found_by_file_before_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_scenario("smoke").name == "smoke"
    (tmp_path / "smoke").mkdir()
    assert load_scenario("smoke").name == "smoke"
    (tmp_path / "scenarios").mkdir()
    write(tmp_path / "scenarios" / "smoke.yaml", tiny(("name", "mine")))
    assert load_scenario("smoke").name == "mine"


def test_relative_files_stand_beside_the_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "models" / "mine").mkdir(parents=True)
    write(home / "t.csv", "t\n1\n")
    arrivals = {"kind": "trace", "file": "t.csv", "time_column": "t"}
    changes = [("model", "models/mine"), ("tokenizer", "tok.json"), ("workload.arrivals", arrivals)]
    file = write(home / "s.yaml", tiny(*changes, ("fleet.0.workload", tiny(*changes)["workload"])))
    monkeypatch.chdir(tmp_path)
    scenario = load_scenario(file)
    assert scenario.model == str(home / "models" / "mine")
    assert scenario.tokenizer == str(home / "tok.json")
    for workload in (scenario.workload, scenario.fleet[0].workload):
        assert workload is not None
        assert getattr(workload.arrivals, "file") == str(home / "t.csv")  # noqa: B009 - one of a union


def test_a_file_that_only_the_working_directory_has_is_taken_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "mine").mkdir()
    file = write(tmp_path / "home" / "s.yaml", TINY)
    monkeypatch.chdir(tmp_path)
    assert load_scenario(file, overrides=["model=./mine"]).model == str(tmp_path / "mine")


@pytest.mark.parametrize("model", ["llama-3.2-1b", "pebble", "org/name"])
def test_a_models_name_stays_a_name(model: str) -> None:
    assert built(("model", model)).model == model


# ---- JSON Schema


@pytest.fixture(scope="module")
def schema() -> Any:
    """A validator of our schema, after its own validity was checked."""
    validators = pytest.importorskip("jsonschema", reason="needs jsonschema, which comes with Ray").validators
    written = json.loads(scenario_json_schema())
    validators.Draft202012Validator.check_schema(written)
    return validators.Draft202012Validator(written)


@pytest.mark.parametrize("file", sorted((ROOT / "scenarios").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_json_schema_accepts_the_shipped_scenarios(file: Path, schema: Any) -> None:
    assert list(schema.iter_errors(read_yaml(file))) == []


def test_the_json_schema_accepts_a_resolved_scenario(schema: Any) -> None:
    assert list(schema.iter_errors(built().as_data())) == []


def test_the_json_schema_accepts_mixed_and_changing_devices(schema: Any) -> None:
    steps = [{"at": "0 s", "value": "present"}, {"at": "8 h", "value": "left"}]
    day = {"kind": "schedule", "every": "1 d", "steps": steps}
    changing = {
        "battery": {"initial": "80 %", "resume": 0.2, "charge": "5 W"},
        "heat": {"ambient": {"low": "10 degC", "high": "30 degC"}},
        "background": {"processor": "20 %", "memory": {"kind": "trace", "file": "m.csv", "initial": "1 GB"}},
    }
    mix = [{"device": "pixel-8", "share": "40 %", **changing}, {"device": "laptop", "share": 0.6, "churn": [day, day]}]
    fleet = [{"name": "all", "count": 5, "link": "wifi", "mix": mix, "mix_draw": "random", "churn": day}]
    assert [error.message for error in schema.iter_errors(tiny(("fleet", fleet)))] == []
    assert not schema.is_valid(tiny(("fleet", [{**fleet[0], "mix": [{"device": "laptop"}]}])))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("colour", "red"),
        ("fleet.0.link", {"use": "wify"}),
        ("fleet.0.link", {"use": "wifi", "rate_up": "20 ms"}),
        ("fleet.0.link", {"use": "wifi", "lost": 0.1}),
        ("policy", {"kind": "static", "split": 4, "codec": "int8", "splits": 4}),
        ("policy", "statik"),
        ("fleet.0.count", "many"),
        ("stop_at", 5),
        ("workload.arrivals.kind", "poison"),
    ],
)
def test_the_json_schema_shows_an_editor_what_loading_refuses(path: str, value: Any, schema: Any) -> None:
    assert schema.is_valid(tiny())
    assert not schema.is_valid(tiny((path, value)))
