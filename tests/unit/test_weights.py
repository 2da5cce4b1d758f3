"""The law of packed weights against sums by hand, and the scenario key that sets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.actors.costs import CostModel
from testbed.actors.memory import edge_demand, largest_split, server_weights_bytes
from testbed.actors.weight_plan import calibration_sequences, check_weights, weight_config, weight_laws
from testbed.actors.weights import WeightLaw, layer_matrices
from testbed.core.errors import ScenarioError
from testbed.core.work import Work
from testbed.models.families import shape_of
from testbed.models.known_shapes import KNOWN_CONFIGS
from testbed.models.source import resolve
from testbed.quantization.config import Learning
from testbed.quantization.formats import ActivationFormat, WeightFormat
from testbed.run import prepare, run
from testbed.scenarios import weights as scenarios
from testbed.scenarios.fingerprint import fingerprint
from testbed.scenarios.load import load_profile, load_scenario
from testbed.scenarios.weights import Weights

from .tiny_scenario import call, tiny, write

LLAMA_7B = resolve("llama-2-7b").shape
INT4 = WeightFormat(bits=4, group_size=128)
NORMS = 2 * 4096


@pytest.mark.parametrize("name", sorted(KNOWN_CONFIGS))
def test_matrices_add_up_to_the_layer(name: str) -> None:
    shape = resolve(name).shape
    assert sum(rows * columns for rows, columns in layer_matrices(shape)) == shape.params_per_layer


@pytest.mark.parametrize(("bits", "group"), [(4, 128), (4, 64), (3, 32), (8, 128)])
def test_a_layer_of_llama_is_the_methods_formula(bits: int, group: int) -> None:
    """P Q + (P / g)(16 + Q), P = 202,375,168; its norms stay at half precision."""
    law = WeightLaw(plain_bits=16, layers=WeightFormat(bits=bits, group_size=group))
    matrices = 202_375_168 * bits + 202_375_168 // group * (16 + bits)
    assert law.layer_bytes(LLAMA_7B) == (matrices + NORMS * 16) // 8
    assert law.footprint_bits(LLAMA_7B, 1) == matrices == LLAMA_7B.layer_bits(bits, group)
    assert law.footprint_bits(LLAMA_7B, 5) == LLAMA_7B.footprint_bits(5, bits, 0, group_size=group) - (
        LLAMA_7B.footprint_bits(0, bits, 0, group_size=group) * 27 / 32
    )


def test_per_channel_side_information_counts_rows() -> None:
    law = WeightLaw(plain_bits=16, layers=WeightFormat(bits=4))
    rows = 4 * 4096 + 2 * 11008 + 4096
    assert law.footprint_bits(LLAMA_7B, 1) == 202_375_168 * 4 + rows * 20


@pytest.mark.parametrize("bits", [4.85, 16, 32])
@pytest.mark.parametrize("name", ["llama-2-7b", "llama-3.2-1b"])
def test_without_formats_it_is_the_plain_law(bits: float, name: str) -> None:
    shape = resolve(name).shape
    law = WeightLaw(plain_bits=bits)
    for start, stop in ((0, 3), (3, shape.num_layers), (0, shape.num_layers), (2, 2)):
        assert law.shard_bytes(shape, start, stop) == shape.weight_bytes(start, stop, bits)


def test_a_tied_matrix_is_two_once_a_role_is_packed() -> None:
    shape = resolve("llama-3.2-1b").shape
    matrix = shape.head_matrix_params
    plain, table = WeightLaw(plain_bits=16), WeightLaw(plain_bits=16, embedding=WeightFormat(bits=8))
    layers = plain.shard_bytes(shape, 0, shape.num_layers) - 2 * matrix
    assert table.shard_bytes(shape, 0, shape.num_layers) == layers + matrix + 128256 * 3 + 2 * matrix
    packed_layers = WeightLaw(plain_bits=16, layers=INT4)
    whole = packed_layers.shard_bytes(shape, 0, shape.num_layers)
    halves = packed_layers.shard_bytes(shape, 0, 8) + packed_layers.shard_bytes(shape, 8, shape.num_layers)
    assert halves - whole == 2 * matrix


def test_device_and_server_demands_follow_their_own_side() -> None:
    front, back = weight_laws(Weights(front_bits=4, back_bits=8, group_size=128, embedding_bits=8), 16)
    packed, plain = edge_demand(LLAMA_7B, 16, 512, front, 16), edge_demand(LLAMA_7B, 16, 512, 16, 16)
    per_layer = (202_375_168 * 4 + 202_375_168 // 128 * 20) // 8 + NORMS * 2
    assert packed.weights_bytes == 16 * per_layer
    assert packed.fixed_bytes == (32000 * 4096 * 8 + 32000 * 32 * 24) // 8
    assert (packed.kv_bytes, packed.work_bytes) == (plain.kv_bytes, plain.work_bytes)
    head = (32000 * 4096 + 4096) * 2
    behind = 16 * ((202_375_168 * 8 + 202_375_168 // 128 * 24) // 8 + NORMS * 2)
    assert server_weights_bytes(LLAMA_7B, [16, 20], back) == behind + head
    pi = load_profile("device", "raspberry-pi-5")
    assert largest_split(pi, LLAMA_7B, 1, 16, 16) == 16
    assert largest_split(pi, LLAMA_7B, 1, front, 16) == 32


def test_a_decode_step_reads_the_packed_bytes() -> None:
    """Bound by memory: time per layer is its bytes over the bandwidth, and the launch."""
    pi = load_profile("device", "raspberry-pi-5")
    step = Work(start=0, stop=1, new_tokens=1, past_tokens=0)
    times = [
        CostModel(profile=pi, shape=LLAMA_7B, weight_bits=law, kv_bits=16).forward_ns([step])
        for law in (WeightLaw(plain_bits=16), WeightLaw(plain_bits=16, layers=INT4))
    ]
    saved_bytes = WeightLaw(plain_bits=16).layer_bytes(LLAMA_7B) - WeightLaw(plain_bits=16, layers=INT4).layer_bytes(
        LLAMA_7B
    )
    assert times[0] - times[1] == pytest.approx(saved_bytes / pi.memory_bandwidth * 1e9, abs=2)


def test_the_scenarios_key_is_what_hosts_are_told() -> None:
    config = weight_config(Weights(front_bits=3, back_bits=None, head_bits=6, group_size=64, symmetric=True))
    assert config.front == WeightFormat(bits=3, group_size=64, symmetric=True)
    assert config.back is None
    assert config.embedding is None
    assert config.head == WeightFormat(bits=6, group_size=64, symmetric=True)
    learning = scenarios.Learning(epochs=3, num_samples=7, clip_rate=0.02, transform_rate=0.003)
    learned = weight_config(Weights(method="omniquant", front_bits=4, calibration=["a"], learning=learning))
    assert learned.learning == Learning(epochs=3, num_samples=7, clip_rate=0.02, transform_rate=0.003)
    assert learned.front == WeightFormat(bits=4, smooth=True)
    clipping = scenarios.Learning(transform=False)
    plain = weight_config(Weights(method="omniquant", front_bits=4, calibration=["a"], learning=clipping))
    assert plain.front == WeightFormat(bits=4)
    smooth = weight_config(Weights(method="smoothquant", front_bits=8, calibration=["a"]))
    assert smooth.inputs_of_layer(-1) == ActivationFormat(bits=8)
    assert smooth.inputs_of_layer(0) is None


def test_activation_keys_are_what_hosts_are_told() -> None:
    keys = {"activation_group_size": 32, "activation_symmetric": False, "activation_clip": 0.9}
    config = weight_config(Weights(front_activation_bits=8, back_activation_bits=4, **keys))
    back = ActivationFormat(bits=4, group_size=32, symmetric=False, clip=0.9)
    assert (config.front, config.back) == (None, None)
    assert (config.front_inputs, config.back_inputs) == (replace(back, bits=8), back)


def test_atom_counts_two_widths_and_the_order() -> None:
    """Llama 2 7B with 128 of 4096 or 11008 channels at 8 bits, the others at 4 in groups of 128, all symmetric."""
    front, _ = weight_laws(Weights(method="atom", front_bits=4, group_size=128, symmetric=True, calibration=["a"]), 16)
    bits = 0
    for rows, columns, count in ((4096, 4096, 4), (11008, 4096, 2), (4096, 11008, 1)):
        body = rows * (columns - 128) * 4 + rows * (columns // 128 - 1) * 16
        bits += count * (body + rows * (128 * 8 + 16) + columns * 32)
    assert front.footprint_bits(LLAMA_7B, 1) == bits


def test_atoms_keys_are_what_hosts_are_told() -> None:
    keys = {"front_bits": 4, "group_size": 32, "front_activation_bits": 4, "back_activation_bits": 8}
    published = weight_config(Weights(method="atom", **keys, calibration=["a"]))
    assert published.front == WeightFormat(bits=4, group_size=32, clip=0.85, outliers=128)
    assert published.front_inputs == ActivationFormat(bits=4, clip=0.9)
    own = {"weight_clip": 1.0, "activation_clip": 0.8, "outlier_channels": 8}
    config = weight_config(Weights(method="atom", **keys, **own, calibration=["a"]))
    assert config.front == WeightFormat(bits=4, group_size=32, outliers=8)
    assert config.back_inputs == ActivationFormat(bits=8, clip=0.8)


def test_rounding_activations_takes_no_memory_and_saves_none() -> None:
    rounded, plain = (weight_laws(weights, 16) for weights in (Weights(front_activation_bits=4), Weights()))
    assert rounded == plain == weight_laws(None, 16)


def test_calibration_text_is_cut_to_what_the_model_can_place() -> None:
    assert calibration_sequences([list(range(70)), [1, 2]], 64) == (tuple(range(64)), tuple(range(64, 70)), (1, 2))
    with pytest.raises(ScenarioError, match="calibration text is too short"):
        calibration_sequences([[1] * 63], 64)


def _refusal(tmp_path: Path, weights: Any) -> str:
    done = call("validate", write(tmp_path / "case.yaml", tiny(("weights", weights))))
    assert done.code == 2, done.out
    return done.err.strip().partition("case.yaml: ")[2]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"front_bits": 7}, "weights.front_bits: not one of the choices (got 7); allowed: 2, 3, 4, 5, 6, 8"),
        ({"front_bits": 4, "group_size": 48}, "weights.group_size: not one of the choices (got 48)"),
        (
            {"method": "gpqt"},
            "weights.method: unknown quantiser (got 'gpqt'); allowed: atom, fp8, gptq, omniquant, rtn,",
        ),
        ({"method": "fp8", "front_bits": 4}, "weights.front_bits: fp8 has one width (got 4); allowed: 8 or null"),
        ({"method": "fp8", "front_bits": 8, "group_size": 64}, "weights.group_size: fp8 has one scale a row (got 64)"),
        ({"front_bits": 4, "learning": {"epochs": 2}}, "weights.learning: rtn learns nothing"),
        ({"method": "omniquant", "learning": {"epochs": 0}}, "weights.learning.epochs: "),
        ({"method": "omniquant", "learning": {"epoch": 3}}, "weights.learning.epoch: unknown key"),
        ({"frontbits": 4}, "weights.frontbits: unknown key"),
        ({"alpha": 2}, "weights.alpha: "),
        ({"back_activation_bits": 7}, "weights.back_activation_bits: not one of the choices (got 7)"),
        ({"activation_clip": 0}, "weights.activation_clip: "),
        (
            {"outlier_channels": 8},
            "weights.outlier_channels: rtn has no such setting (got 8); allowed: null, or method",
        ),
        (
            {"weight_clip": 0.9},
            "weights.weight_clip: rtn has no such setting (got 0.9); allowed: null, or method: atom",
        ),
        (
            {"front_bits": 4, "activation_clip": 0.9},
            "weights.activation_clip: no activations are rounded (got 0.9); allowed: null, or bits under "
            "front_activation_bits or back_activation_bits",
        ),
        ({"activation_symmetric": False}, "weights.activation_symmetric: no activations are rounded (got False)"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, weights: Any, expected: str) -> None:
    assert _refusal(tmp_path, weights).startswith(expected)


def test_a_group_longer_than_a_row_is_refused() -> None:
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100}
    narrow = shape_of("narrow", {"model_type": "llama", "intermediate_size": 172, **sizes})
    check_weights(Weights(front_bits=4, group_size=64, head_bits=4), narrow)
    for key in ("front_bits", "back_bits", "embedding_bits", "head_bits"):
        with pytest.raises(ScenarioError, match=r"weights\.group_size: the group is longer .*got 128.*at most 64"):
            check_weights(Weights(**{key: 4}, group_size=128), narrow)
    for key in ("front_activation_bits", "back_activation_bits"):
        with pytest.raises(ScenarioError, match=r"weights\.activation_group_size: the group is longer .*at most 64"):
            check_weights(Weights(**{key: 4}, activation_group_size=128), narrow)


def test_more_outlier_channels_than_a_row_has_are_refused() -> None:
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100}
    narrow = shape_of("narrow", {"model_type": "llama", "intermediate_size": 172, **sizes})
    atom = {"method": "atom", "front_bits": 4, "calibration": ["a"]}
    check_weights(Weights(**atom, outlier_channels=63), narrow)
    with pytest.raises(ScenarioError, match=r"weights\.outlier_channels: .*got 128.*1 to 63"):
        check_weights(Weights(**atom), narrow)
    with pytest.raises(ScenarioError, match=r"weights\.group_size: .*got 64.*at most 56"):
        check_weights(Weights(**atom, outlier_channels=8, group_size=64), narrow)


def test_how_weights_are_stored_is_part_of_what_a_scenario_means(tmp_path: Path) -> None:
    """Absent and null are the same."""
    scenarios = [
        load_scenario(write(tmp_path / f"{index}.yaml", tiny(*changes)))
        for index, changes in enumerate([(), (("weights", None),), (("weights", {"front_bits": 4}),)])
    ]
    names = [fingerprint(scenario) for scenario in scenarios]
    assert names[0] == names[1]
    assert names[2] != names[0]


def _outcomes(folder: Path, *overrides: str) -> Mapping[str, Any]:
    """The summary of the shipped scenario, run into a new folder."""
    return run(prepare(load_scenario("opsc", overrides=overrides)), folder).summary


def test_the_shipped_scenario_fits_only_because_its_front_is_packed(tmp_path: Path) -> None:
    packed, plain = _outcomes(tmp_path / "packed"), _outcomes(tmp_path / "plain", "weights=null")
    assert (packed["oom"], packed["completed"]) == (0, 24)
    assert plain["oom"] > 8
    assert plain["completed"] == 24 - plain["oom"]
    deep = call("run", "opsc", "-o", "weights=null", "-o", "policy.split=20", "--out", tmp_path / "deep")
    assert deep.code == 2
    assert "policy.split: group pis: a raspberry-pi-5 has 7.00 GB free, and the front of 20 layers takes" in deep.err
    # 31 layers take the front's 4 bits: 8 would not fit, nor would the whole model at 8.
    assert _outcomes(tmp_path / "31", "policy.split=31")["oom"] == 0
    assert call("validate", "opsc", "-o", "policy.split=32").code == 0


def test_each_side_computes_as_fast_as_its_own_bits_are_read(tmp_path: Path) -> None:
    def seconds(name: str, *overrides: str) -> dict[str, float]:
        short = ("workload.prompts.length={law: fixed, value: 32}", "workload.arrivals.requests_per_device=1")
        stages = _outcomes(tmp_path / name, *overrides, *short)["breakdown_s"]
        return {stage: found["mean_s"] for stage, found in stages.items()}

    packed, plain_back = seconds("packed"), seconds("plain back", "weights.back_bits=null")
    plain_front = seconds("plain front", "weights.front_bits=null")
    assert packed["front"] == plain_back["front"] < 0.5 * plain_front["front"]
    assert packed["back"] == plain_front["back"] < 0.7 * plain_back["back"]
