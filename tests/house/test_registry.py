"""Every name a user can write for a seam stands for something that can be loaded."""

from __future__ import annotations

import pytest

from testbed.core.errors import ScenarioError
from testbed.core.registry import SEAMS, Registry

ROWS = [(seam, name) for seam in SEAMS for name in seam]


@pytest.mark.parametrize(("seam", "name"), ROWS, ids=[f"{seam.kind}-{name}" for seam, name in ROWS])
def test_every_row_loads_a_class(seam: Registry, name: str) -> None:
    assert isinstance(seam.load(name), type)


@pytest.mark.parametrize("seam", SEAMS, ids=[seam.kind for seam in SEAMS])
def test_a_mistyped_name_is_answered_with_the_nearest_row(seam: Registry) -> None:
    name = next(iter(seam))
    with pytest.raises(ScenarioError, match=f"did you mean '{name}'") as caught:
        seam.load(name + "x")
    assert caught.value.allowed == sorted(seam)


def test_no_two_rows_of_a_seam_stand_for_the_same_thing() -> None:
    for seam in SEAMS:
        loaded = [seam.load(name) for name in seam]
        assert len(set(loaded)) == len(loaded), seam.kind
