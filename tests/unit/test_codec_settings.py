"""A codec's settings in a scenario: a name, a mapping or one text, all the same thing."""

import json
import re
import sys

import numpy as np
import pytest

from testbed.codecs import compiling
from testbed.codecs.named import make_codec
from testbed.core.errors import ScenarioError
from testbed.core.events import RequestAdmitted, TransferEnded
from testbed.core.registry import CODECS
from testbed.policies.fixed import Static
from testbed.scenarios.codec_setting import codec_name, read_setting, write_setting
from tests.sim_runs import TINY, of_kind, run_events, scenario


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("int8", "int8"),
        ({"kind": "int8"}, "int8"),
        ({"kind": "int8", "entropy": "none"}, "int8"),
        ({"kind": "ts-tabq", "tau": 5, "delta": 0.2, "entropy": "rans"}, "ts-tabq(delta=0.2,entropy=rans,tau=5.0)"),
        ("ts-tabq( tau=5 , delta=0.2)", "ts-tabq(delta=0.2,tau=5.0)"),
        ("ts-tabq(delta=0.1)", "ts-tabq"),
        ("ts()", "ts"),
        ({"kind": "int4", "centre": True, "symmetric": False}, "int4(centre=true,symmetric=false)"),
        ({"kind": "int8", "rotate": "hadamard", "signs": 7, "centre": False}, "int8(rotate=hadamard,signs=7)"),
        ("ts(bits=3, below=uniform)", "ts(below=uniform,bits=3)"),
        ({"kind": "tabq", "qmin": 3, "test": "int_mean", "delta": 6}, "tabq(delta=6.0,qmin=3,test=int_mean)"),
    ],
)
def test_every_way_of_writing_gives_one_text(written, text):
    assert Static.Config(split=1, codec=written).codec == text
    assert Static.Config(split=1, codec=text).codec == text
    assert write_setting(read_setting(text)) == text
    assert codec_name(text) in CODECS


@pytest.mark.parametrize(
    ("written", "path", "problem"),
    [
        ("int9", "policy.codec", "unknown codec"),
        ({"kind": "int9"}, "policy.codec.kind", "unknown codec"),
        ({"delta": 1}, "policy.codec.kind", "required key is missing"),
        ({"kind": "tabq", "delta": -1}, "policy.codec.delta", "too small"),
        ({"kind": "tabq", "tau": 1}, "policy.codec.tau", "unknown key"),
        ({"kind": "tabq", "qmax": 9}, "policy.codec.qmax", "too large"),
        ({"kind": "tabq", "qmin": 5, "qmax": 3}, "policy.codec.qmin", "too large"),
        ({"kind": "ts-tabq", "tau": 5, "per_row": 2}, "policy.codec.per_row", "only one of"),
        ({"kind": "ts", "entropy": "huffman"}, "policy.codec.entropy", "not one of the choices"),
        ({"kind": "int8", "signs": 3}, "policy.codec.signs", "without a rotation"),
        ({"kind": "int8", "rotate": "hadamard", "signs": -1}, "policy.codec.signs", "too small"),
        ({"kind": "int8", "rotate": "fourier"}, "policy.codec.rotate", "not one of the choices"),
        ({"kind": "raw-float16", "centre": True}, "policy.codec.centre", "unknown key"),
        ({"kind": "uniform", "bits": 9}, "policy.codec.bits", "too large"),
        ({"kind": "ts", "bits": 3}, "policy.codec.bits", "uniform below takes bits"),
        ({"kind": "ts", "below": "uniform"}, "policy.codec.bits", "uniform below takes bits"),
        ({"kind": "ts", "below": "fp8", "symmetric": False}, "policy.codec.symmetric", "only a uniform grid"),
        ("int8(centre=yes)", "policy.codec.centre", "true or false"),
        ("tabq(delta)", "policy.codec", "key=value"),
        ("tabq(delta=0.1", "policy.codec", "unknown codec"),
        ("tabq(delta=nan)", "policy.codec.delta", "finite"),
        (8, "policy.codec", "a text is expected"),
    ],
)
def test_what_is_no_setting_is_refused_where_it_stands(written, path, problem):
    from testbed.scenarios.problems import validate
    from testbed.scenarios.schema import Scenario

    data = scenario().as_data()
    data["policy"]["codec"] = written
    with pytest.raises(ScenarioError, match=problem) as caught:
        validate(Scenario, data)
    assert caught.value.path == path


def test_modelled_devices_take_the_stated_size():
    bound, stated = make_codec("ts-tabq"), make_codec("ts-tabq(modelled_above=0.001,modelled_bits=4)")
    side = 24 + 5
    assert bound.nbytes(1, 4096) == side + 9 * 512
    assert stated.nbytes(1, 4096) == side + 4096 // 2 + (13 + 7) // 8 + (4 * 12 + 7) // 8 + 4 * 4
    assert make_codec("ts-tabq(per_row=2)").nbytes(1, 4096) > bound.nbytes(1, 4096)
    assert not bound.is_fixed_size
    assert make_codec("int4").is_fixed_size
    assert not make_codec("int4(entropy=rans)").is_fixed_size


def test_a_scenario_of_modelled_devices_runs_with_settings():
    setting = "ts-tabq(modelled_bits=3.0)"
    built = scenario(policy={"kind": "static", "split": 2, "codec": {"kind": "ts-tabq", "modelled_bits": 3}})
    events = run_events(built)
    assert of_kind(events, RequestAdmitted)[0].codec == setting
    sizes = [event.payload_bytes for event in of_kind(events, TransferEnded, direction="up")]
    assert sizes[0] == make_codec(setting).nbytes(5, TINY.hidden_size)
    assert set(sizes[1:]) == {make_codec(setting).nbytes(1, TINY.hidden_size)}


@pytest.mark.parametrize("name", list(CODECS))
def test_every_codec_works_as_it_is_named(name):
    codec = make_codec(name)
    rows = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    assert np.abs(codec.decode(codec.encode(rows)) - rows).max() < 0.6
    assert isinstance(CODECS.load(name)(), type(codec))


def test_without_numba_the_reference_makes_the_same_bytes(monkeypatch, caplog):
    rows = np.random.default_rng(1).standard_normal((3, 200)).astype(np.float32)
    settings = ["int8", "ts-tabq(tau=2)", "ts-tabq(delta=0.3,entropy=rans,tau=2)"]
    messages = [make_codec(setting).encode(rows) for setting in settings]
    decoded = [make_codec(setting).decode(message) for setting, message in zip(settings, messages, strict=True)]
    compiling.kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "testbed.codecs.kernels", None)
    try:
        assert [make_codec(setting).encode(rows) for setting in settings] == messages
        for setting, message, values in zip(settings, messages, decoded, strict=True):
            np.testing.assert_array_equal(make_codec(setting).decode(message), values)
        assert "numba is not installed" in caplog.text
    finally:
        compiling.kernels.cache_clear()


def test_the_schema_for_editors_knows_every_codec():
    from testbed.scenarios.json_schema import scenario_json_schema

    static = next(
        described
        for described in json.loads(scenario_json_schema())["$defs"]["PolicyConfig"]["anyOf"]
        if described.get("title") == "static"
    )
    names, text, *mappings = static["properties"]["codec"]["anyOf"]
    assert names == {"enum": list(CODECS)}
    assert re.match(text["pattern"], "ts-tabq(delta=0.2)")
    assert [mapping["title"] for mapping in mappings] == list(CODECS)
    assert "delta" in mappings[-1]["properties"]
