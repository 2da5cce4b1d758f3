from __future__ import annotations

import gc

import pytest

from testbed.core.collector import rare_collections


def test_the_collectors_thresholds_come_back_also_after_an_error():
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="stop"), rare_collections():
        assert gc.get_threshold()[0] > before[0]
        raise ValueError("stop")
    assert gc.get_threshold() == before
