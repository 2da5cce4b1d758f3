"""The file that `testbed calibrate` writes: a device, a server and a link profile, each with its sources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import yaml

from testbed.core.errors import ScenarioError
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import DeviceProfile, LinkProfile, Profile, ServerProfile
from testbed.scenarios.yaml_file import read_yaml
from testbed.studies.local.calibrate import Calibration

ProfileT = TypeVar("ProfileT", bound=Profile)


def write_profiles(found: Calibration, file: Path) -> None:
    """The profiles as one YAML file with a key each, and their tables as JSON files beside it.

    Raises ScenarioError for a file that can't be written.
    """
    sections: dict[str, Any] = {"link": _with_sources(found.link)}
    try:
        for side, profile in (("device", found.device), ("server", found.server)):
            table = file.with_name(f"{file.stem}.{side}.json")
            text = json.dumps(found.tables[side].model_dump(mode="json", exclude_none=True))
            table.write_text(text + "\n", encoding="utf-8")
            sections[side] = {**_with_sources(profile), "profile_table": {"file": table.name}}
        sections["fit"] = [asdict(error) for error in found.errors]
        file.write_text(yaml.safe_dump(sections, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"can't be written: {error.strerror}", file=file) from None


def _with_sources(profile: DeviceProfile | ServerProfile | LinkProfile) -> dict[str, Any]:
    """As a catalogue file has it: each number with where it comes from."""
    data = profile.model_dump(mode="json", exclude_none=True, include=profile.model_fields_set)
    sources = data.pop("sources", {})
    return {key: {"value": value, "source": sources[key]} if key in sources else value for key, value in data.items()}


def read_profiles(file: Path) -> tuple[DeviceProfile, ServerProfile, LinkProfile]:
    """What `write_profiles` wrote. Raises ScenarioError, located in the file, for anything else."""
    data = read_yaml(file)
    try:
        missing = [key for key in ("device", "server", "link") if not isinstance(data.get(key), Mapping)]
        if missing:
            allowed = "a file that testbed calibrate wrote"
            raise ScenarioError("required key is missing", path=missing[0], allowed=allowed)
        for key in ("device", "server"):
            table = data[key].get("profile_table")
            if isinstance(table, Mapping) and isinstance(table.get("file"), str):
                data[key]["profile_table"] = {**table, "file": str(file.parent.absolute() / table["file"])}
        return (
            _validated(DeviceProfile, data["device"], "device"),
            _validated(ServerProfile, data["server"], "server"),
            _validated(LinkProfile, data["link"], "link"),
        )
    except ScenarioError as error:
        raise error.located(file=file) from None


def _validated(kind: type[ProfileT], data: Any, key: str) -> ProfileT:
    try:
        return validate(kind, data)
    except ScenarioError as error:
        raise error.below(key) from None
