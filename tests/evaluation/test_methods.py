"""The rows: names, parts and what fits a model."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.models.source import resolve
from testbed.studies.evaluation.methods import METHODS, chosen_methods, fitting_group, fitting_outliers, weights_of

TEXTS = ["The otter's favourite food is plums. " * 30]


def test_names_lists_and_all_stand_for_rows_once_and_in_order():
    assert [row.name for row in chosen_methods(["opsc", "fp", "opsc"])] == ["opsc", "fp"]
    assert [row.name for row in chosen_methods(["fp", "all"])] == list(METHODS)


def test_parts_can_be_replaced():
    (row,) = chosen_methods(["opsc"], codec="ts-tabq(delta=0.2)")
    assert (row.weights, row.codec) == (METHODS["opsc"].weights, "ts-tabq(delta=0.2)")
    assert row.name == "opsc+ts-tabq(delta=0.2)"
    (row,) = chosen_methods(["fp"], weights={"front_bits": 3}, kv={"back_bits": 4})
    assert (row.weights, row.kv, row.codec) == ({"front_bits": 3}, {"back_bits": 4}, "raw-float32")
    assert row.name == "fp+weights(front_bits=3)+kv(back_bits=4)"


def test_unknown_names_get_the_nearest():
    with pytest.raises(ScenarioError, match="did you mean 'smoothquant'"):
        chosen_methods(["smoothqant"])
    with pytest.raises(ScenarioError, match="did you mean 'int4'"):
        chosen_methods(["fp"], codec="int44")


@pytest.mark.parametrize(("model", "group", "outliers"), [("pebble", 32, 3), ("llama-2-7b", 128, 128)])
def test_groups_and_outliers_fit_the_rows(model, group, outliers):
    shape = resolve(model).shape
    assert (fitting_group(shape), fitting_outliers(shape)) == (group, outliers)
    for method in METHODS.values():
        block = weights_of(method, shape, TEXTS)
        assert (block is None) == (method.name == "fp")
        assert block is None or block.group_size in {group, None}


def test_a_block_that_no_scenario_could_have_is_refused(cut):
    (row,) = chosen_methods(["fp"], weights={"method": "rtn", "front_bits": 7})
    with pytest.raises(ScenarioError, match="front_bits"):
        weights_of(row, cut.source.shape, TEXTS)
