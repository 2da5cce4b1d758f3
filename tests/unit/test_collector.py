from __future__ import annotations

import gc

import pytest

from testbed.core.collector import rare_collections


def test_the_collectors_thresholds_come_back_also_after_an_error():
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError):
        _divide(gc.get_threshold()[0])
    assert gc.get_threshold() == before


def _divide(before):
    with rare_collections():
        assert gc.get_threshold()[0] > before
        raise ZeroDivisionError
