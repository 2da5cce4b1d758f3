"""A run's folder is made before anything runs, and nothing that no run wrote is ever removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.core.errors import ScenarioError
from testbed.results import files
from testbed.run_folder import default_folder, make_folder, write_inputs
from testbed.scenarios.fingerprint import fingerprint
from testbed.scenarios.load import build_scenario
from tests.unit.tiny_scenario import files_below, tiny

SCENARIO = build_scenario(tiny(), base=Path())


def earlier_run(folder: Path) -> Path:
    make_folder(folder, force=False)
    write_inputs(folder, SCENARIO, started="earlier")
    (folder / files.SUMMARY).write_text("{}")
    (folder / files.REQUESTS).write_bytes(b"rows")
    return folder


def test_the_default_is_the_name_and_the_fingerprint() -> None:
    assert default_folder(SCENARIO) == Path("runs") / f"tiny-{fingerprint(SCENARIO)}"


def test_env_json_says_what_ran_where(tmp_path: Path) -> None:
    found = json.loads((earlier_run(tmp_path / "run") / files.ENVIRONMENT).read_text())
    assert found["seed"] == 3
    assert found["fingerprint"] == fingerprint(SCENARIO)
    assert found["started"] == "earlier"
    assert {"numpy", "simpy", "torch", "ray", "pyarrow"} <= found["versions"].keys()


def test_folders_on_the_way_are_made_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", force=False)
    make_folder(tmp_path / "a" / "b", force=False)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_an_earlier_run_is_replaced_only_by_force(tmp_path: Path) -> None:
    folder = earlier_run(tmp_path / "run")
    before = files_below(folder)
    with pytest.raises(ScenarioError, match="run: the run folder exists; allowed: another --out, or --force to replac"):
        make_folder(folder, force=False)
    assert files_below(folder) == before
    make_folder(folder, force=True)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("names", [["notes.txt"], ["scenario.yaml"], ["scenario.yaml", "data.csv"], ["env.json"]])
def test_a_folder_that_no_run_wrote_is_left_alone(names: list[str], force: bool, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
    before = files_below(tmp_path)
    with pytest.raises(ScenarioError, match="exists and is no run folder; allowed: another --out"):
        make_folder(tmp_path, force=force)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
def test_a_run_folder_with_something_of_the_users_is_left_alone(force: bool, tmp_path: Path) -> None:
    folder = earlier_run(tmp_path / "run")
    (folder / "figures").mkdir()
    before = files_below(folder)
    with pytest.raises(ScenarioError, match=r"holds a file that is not the run's \(got 'figures'\)"):
        make_folder(folder, force=force)
    assert files_below(folder) == before


def test_a_file_in_the_place_of_the_folder_or_of_one_above_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ScenarioError, match="file: exists and is no folder; allowed: another --out"):
        make_folder(file, force=True)
    with pytest.raises(ScenarioError, match="the run folder can't be written: Not a directory; allowed: another --out"):
        make_folder(file / "run", force=True)
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", read_only)  # permission bits do not stop a root user, so none are set here
    with pytest.raises(ScenarioError, match="run: the run folder can't be written: Permission denied"):
        make_folder(tmp_path / "run", force=False)
