"""Every shipped profile loads, is named like its file, and says where each of its numbers comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from testbed.scenarios.load import load_profile

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "device": ROOT / "actors" / "devices",
    "server": ROOT / "actors" / "servers",
    "link": ROOT / "network_models" / "links",
}
FILES = [(kind, path) for kind, folder in FOLDERS.items() for path in sorted(folder.glob("*.yaml"))]
TEXT_KEYS = {"name", "description", "model"}
MENTIONED = {
    "device": {
        "raspberry-pi-4b",
        "raspberry-pi-5",
        "jetson-orin-nano",
        "jetson-orin-nano-super",
        "jetson-agx-orin",
        "pixel-8",
        "galaxy-s24",
        "mini-pc",
        "laptop",
    },
    "server": {"l4", "a100", "h100", "h200", "rtx-4090", "cpu-server"},
    "link": {"ethernet-1g", "wifi", "lte", "5g", "geo-satellite", "ideal"},
}


@pytest.mark.parametrize("kind", MENTIONED)
def test_the_catalogue_holds_what_the_documentation_names(kind: str) -> None:
    assert MENTIONED[kind] <= {path.stem for found, path in FILES if found == kind}


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[path.stem for _, path in FILES])
def test_entry_loads_under_its_file_name(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    profile = load_profile(kind, path.stem)
    assert yaml.safe_load(path.read_text())["name"] == path.stem
    assert profile.name == path.stem
    assert profile.description.strip()
    assert "\n" not in profile.description.strip()


@pytest.mark.parametrize(("kind", "path"), FILES, ids=[path.stem for _, path in FILES])
def test_every_number_has_a_source(kind: str, path: Path) -> None:
    for key, item in yaml.safe_load(path.read_text()).items():
        if key in TEXT_KEYS:
            continue
        assert isinstance(item, dict), f"{kind} {path.stem}: {key} is bare"
        assert set(item) == {"value", "source"}, f"{kind} {path.stem}: {key}"
        assert len(str(item["source"])) > 5, f"{kind} {path.stem}: {key}"
        assert not re.search(r"(^|\s|\()(/|~/|\.\./)\w", str(item["source"])), f"{key}: a path of one machine"


@pytest.mark.parametrize("kind", ["device", "server"])
def test_no_processor_is_without_free_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for found, path in FILES:
        if found == kind:
            profile = load_profile(kind, path.stem).model_dump()
            assert profile["reserved_memory"] < profile["memory"], path.stem
