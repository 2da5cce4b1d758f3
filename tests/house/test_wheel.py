"""What is installed from the wheel: one import name with its catalogue, and it runs from anybody's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest
import yaml

from tests.house.test_commands import commands_for_testbed, on_ray
from tests.processes import MARK, marked, wait_until_gone
from tests.unit.tiny_scenario import call

CATALOGUE = ("scenarios", "actors/devices", "actors/servers", "network_models/links", "network_models/topologies")
MAX_WEIGHTS_BYTES = 12_000_000
CHEAP = ("-o", "policy.codec=raw-float16")  # nothing to compile, which the installed code would do anew
DECOY = "from pathlib import Path\nPath({marker!r}).touch()\nraise ImportError('the decoy was imported')\n"


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(repo_root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> dict[str, int]:
    """Size in bytes of every file in the wheel, by its name."""
    with ZipFile(wheel) as archive:
        return {info.filename: info.file_size for info in archive.infolist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that holds the installed wheel and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True, timeout=300)
    return target


@pytest.fixture
def own_folder(installed: Path, tmp_path: Path) -> Path:
    """A user's folder with devices of their own, and code that must never be imported in place of ours."""
    for name in ("actors", "network_models", "scenarios"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(DECOY.format(marker=str(tmp_path / "decoy-imported")))
    shipped = installed / "testbed/_catalogue/actors/devices/raspberry-pi-5.yaml"
    device = yaml.safe_load(shipped.read_text(encoding="utf-8"))
    (tmp_path / "actors/devices").mkdir()
    for name, description in (("my-device", "built on my bench"), ("raspberry-pi-5", "overclocked on my bench")):
        changed = {**device, "name": name, "description": description}
        (tmp_path / f"actors/devices/{name}.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    return tmp_path


def run_testbed(installed: Path, cwd: Path, *arguments: str, without: str = "-", **more: str) -> str:
    """Standard output of the installed `testbed`, run in a folder; the decoys there must stay untouched.

    The environment is this process's without what begins with `without`, and more.
    """
    own = {key: value for key, value in os.environ.items() if not key.startswith(without)}
    environment = own | {"PYTHONPATH": str(installed), "COLUMNS": "200"} | more
    command = [sys.executable, "-m", "testbed", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert not (cwd / "decoy-imported").exists()
    return done.stdout


def test_one_import_name_and_its_metadata(names: Mapping[str, int], repo_root: Path) -> None:
    version = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    dist_info = f"split_testbed-{version}.dist-info"
    assert {PurePosixPath(name).parts[0] for name in names} == {"testbed", dist_info}
    assert f"{dist_info}/licenses/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.parametrize("folder", CATALOGUE)
def test_catalogue_travels_whole(folder: str, names: Mapping[str, int], repo_root: Path) -> None:
    ours = {f"testbed/_catalogue/{path.relative_to(repo_root)}" for path in (repo_root / folder).rglob("*.yaml")}
    assert ours, f"{folder} holds no YAML file"
    assert ours <= set(names)


def test_every_module_travels(names: Mapping[str, int], repo_root: Path) -> None:
    modules = {str(path.relative_to(repo_root)) for path in (repo_root / "testbed").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py") and not name.startswith("testbed/_catalogue/")}


def test_reference_model_travels_and_is_small(names: Mapping[str, int]) -> None:
    files = {name.rpartition("/")[2]: size for name, size in names.items() if "/pebble/weights/" in name}
    assert {"config.json", "tokenizer.json"} <= set(files)
    weights = [size for name, size in files.items() if name.endswith(".safetensors")]
    assert weights
    assert 0 < sum(weights) <= MAX_WEIGHTS_BYTES


def test_own_devices_are_listed_beside_the_shipped_ones(installed: Path, own_folder: Path) -> None:
    listed = run_testbed(installed, own_folder, "list", "device")
    assert "my-device" in listed
    shipped = {path.stem for path in (installed / "testbed/_catalogue/actors/devices").glob("*.yaml")}
    assert {name for name in shipped if name not in listed} == set()


def test_an_own_device_comes_before_the_shipped_one_of_its_name(installed: Path, own_folder: Path) -> None:
    assert "overclocked on my bench" in run_testbed(installed, own_folder, "show", "raspberry-pi-5")
    (own_folder / "actors/devices/raspberry-pi-5.yaml").unlink()
    shown = run_testbed(installed, own_folder, "show", "raspberry-pi-5")
    assert "raspberry-pi-5" in shown
    assert "on my bench" not in shown


def test_the_readmes_run_on_ray_uses_the_installed_code_and_is_the_run_in_process(
    installed: Path, own_folder: Path, tmp_path: Path
) -> None:
    """With another hash seed and an empty home; it is quiet, and nothing is left of it."""
    (words,) = [words for words in commands_for_testbed() if on_ray(words)]
    home, mark = tmp_path / "home", uuid.uuid4().hex
    home.mkdir()
    more = {"PYTHONHASHSEED": "4711", "HOME": str(home), MARK: mark}
    done = run_testbed(installed, own_folder, *words, "--json", *CHEAP, without="RAY_", **more)
    assert wait_until_gone(marked(mark)) == []
    assert [item.name for item in home.iterdir() if "ray" in item.name] == []
    here = call("run", "smoke", "--json", *CHEAP, "--out", tmp_path / "here")
    assert json.loads(here.out)["completed"] == 4
    assert json.loads(done)["event_digest"] == json.loads(here.out)["event_digest"]
