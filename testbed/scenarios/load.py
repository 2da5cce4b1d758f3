"""A scenario file becomes one frozen Scenario: read, override, resolve what it refers to, validate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.catalogue import entries, find
from testbed.scenarios.overrides import apply_overrides
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import DeviceProfile, LinkProfile, Profile, ServerProfile
from testbed.scenarios.schema import Scenario
from testbed.scenarios.yaml_file import read_yaml

PROFILES: Mapping[str, type[Profile]] = MappingProxyType(
    {"device": DeviceProfile, "server": ServerProfile, "link": LinkProfile}
)
# (list in the scenario, key in its entries) -> catalogue kind
_REFERENCES = (("fleet", "device", "device"), ("fleet", "link", "link"), ("servers", "server", "server"))


def load_scenario(source: str | Path, *, overrides: Iterable[str] = (), seed: int | None = None) -> Scenario:
    """Read a scenario by path or by the name of a shipped one.

    Raises ScenarioError, located in the file and its YAML path, for anything that is wrong with it.
    """
    path = scenario_path(source)
    data = read_yaml(path)
    if seed is not None:
        data["seed"] = seed
    try:
        data = apply_overrides(data, overrides)
        return build_scenario(data, base=path.parent)
    except ScenarioError as error:
        raise error.located(file=path) from None


def scenario_path(source: str | Path) -> Path:
    """A path as given, or the file of a scenario of the catalogue."""
    path = Path(source)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        if path.is_dir():
            raise ScenarioError("a folder, not a scenario file", file=path)
        if not path.exists():
            known = [f"scenarios/{name}.yaml" for name in entries("scenario")]
            raise ScenarioError("no such scenario file", file=path, nearest=nearest_name(str(source), known))
        return path
    return find("scenario", str(source))


def build_scenario(data: Mapping[str, Any], *, base: Path) -> Scenario:
    """Validate plain data; files it names are taken relative to `base`, the scenario's folder."""
    resolved = _resolve_files(_resolve_references(dict(data)), base)
    return validate(Scenario, resolved)


def load_profile(kind: str, name: str) -> Profile:
    """One entry of the catalogue."""
    path = find(kind, name)
    try:
        return validate(PROFILES[kind], _profile_data(path))
    except ScenarioError as error:
        raise error.located(file=path) from None


def _profile_data(path: Path) -> dict[str, Any]:
    return {"name": path.stem, **read_yaml(path)}


def _resolve_references(data: dict[str, Any]) -> dict[str, Any]:
    for section, key, kind in _REFERENCES:
        items = data.get(section)
        if not isinstance(items, list):
            continue  # validation says what is wrong
        data[section] = [
            {**item, key: _resolve(item[key], kind, f"{section}[{index}].{key}")}
            if isinstance(item, Mapping) and key in item
            else item
            for index, item in enumerate(items)
        ]
    return data


def _resolve(reference: Any, kind: str, path: str) -> Any:
    """A name, or ``{use: name, field: override}``, becomes the entry's full data; other mappings stand as they are."""
    if isinstance(reference, str):
        name, changes = reference, {}
    elif isinstance(reference, Mapping) and isinstance(reference.get("use"), str):
        name, changes = reference["use"], {key: item for key, item in reference.items() if key != "use"}
    else:
        return reference
    try:
        profile = load_profile(kind, name)
    except ScenarioError as error:
        raise error.located(path=path) from None
    kept = profile.model_dump(mode="json", exclude_none=True)
    kept["sources"] = {field: text for field, text in kept["sources"].items() if field not in changes}
    return {**kept, **changes}


def _resolve_files(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make relative `file` entries, and a tokenizer or model that is a file there, independent of where we stand."""
    for key in ("tokenizer", "model"):
        value = data.get(key)
        if isinstance(value, str) and not Path(value).is_absolute() and (base / value).exists() and "/" in value:
            data[key] = str((base / value).resolve())
    workloads = [data, *(item for item in _list(data.get("fleet")) if isinstance(item, Mapping))]
    for holder in workloads:
        if isinstance(holder.get("workload"), Mapping):
            holder["workload"] = _with_absolute_files(holder["workload"], base)  # type: ignore[index]
    return data


def _with_absolute_files(block: Mapping[str, Any], base: Path) -> dict[str, Any]:
    changed = dict(block)
    for key, value in block.items():
        if isinstance(value, Mapping):
            changed[key] = _with_absolute_files(value, base)
        elif key == "file" and isinstance(value, str):
            changed[key] = str((base / value).resolve())
    return changed


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
