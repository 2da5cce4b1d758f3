"""A scenario file becomes one frozen Scenario: read, override, resolve what it refers to, validate."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from testbed.core.errors import ScenarioError, nearest_name
from testbed.scenarios.catalogue import entries, find
from testbed.scenarios.file_paths import absolute, with_absolute_files
from testbed.scenarios.mix import Expansion
from testbed.scenarios.overrides import apply_overrides
from testbed.scenarios.problems import validate
from testbed.scenarios.profiles import DeviceProfile, LinkProfile, Profile, ServerProfile
from testbed.scenarios.schema import Scenario
from testbed.scenarios.topology_files import resolve_topology
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
    data = apply_overrides(read_yaml(path), overrides)
    if seed is not None:
        data["seed"] = seed
    try:
        return build_scenario(data, base=path.parent)
    except ScenarioError as error:
        raise error.located(file=path) from None


def scenario_path(source: str | Path) -> Path:
    """A path as given, or the file of a scenario of the catalogue."""
    path, known = Path(source), entries("scenario")
    if path.exists() and not path.is_dir():
        return path
    if str(source) in known:
        return known[str(source)]
    if path.is_dir():
        raise ScenarioError("a folder, not a scenario file", file=path)
    if path.suffix in {".yaml", ".yml"} or path.name != str(source):
        raise ScenarioError("no such scenario file", file=path, nearest=_nearest_file(path, known))
    return find("scenario", str(source))


def _nearest_file(path: Path, known: Iterable[str]) -> str | None:
    """A scenario file with a similar name in the folder, else the catalogue's entry of a similar name."""
    beside = [str(item) for item in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    return nearest_name(str(path), beside) or nearest_name(path.stem, known)


def build_scenario(data: Mapping[str, Any], *, base: Path) -> Scenario:
    """Validate plain data; the files and folders it names are looked up below `base`, the scenario's folder, first."""
    expansion = Expansion(copy.deepcopy(dict(data)))
    try:
        resolved = _resolve_files(_resolve_references(expansion.data), base)
        if resolved.get("topology") is not None:
            resolved["topology"] = _resolve_network(resolved["topology"], base)
        return validate(Scenario, resolved)
    except ScenarioError as error:
        raise expansion.written(error) from None


def load_link(source: str, overrides: Iterable[str] = ()) -> LinkProfile:
    """A link by its file or by its name in the catalogue, with changes.

    Raises ScenarioError, located in its file, for anything that is wrong with it.
    """
    path = Path(source)
    is_file = path.suffix in {".yaml", ".yml"} or path.name != source
    if is_file and not path.is_file():
        raise ScenarioError("no such link file", file=path, nearest=nearest_name(path.stem, entries("link")))
    file = path if is_file else find("link", source)
    try:
        profile = validate(LinkProfile, _profile_data(file))
    except ScenarioError as error:
        raise error.located(file=file) from None
    changed = apply_overrides(profile.model_dump(mode="json", exclude_none=True), overrides)
    return validate(LinkProfile, with_absolute_files(changed, Path.cwd()))


def load_profile(kind: str, name: str) -> Profile:
    """One entry of the catalogue."""
    path = find(kind, name)
    try:
        return validate(PROFILES[kind], _profile_data(path))
    except ScenarioError as error:
        raise error.located(file=path) from None


def _profile_data(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = with_absolute_files({"name": path.stem, **read_yaml(path)}, path.parent)
    return data


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
    elif isinstance(reference, Mapping) and "use" in reference:
        name, changes, path = (
            reference["use"],
            {key: item for key, item in reference.items() if key != "use"},
            f"{path}.use",
        )
    else:
        return reference
    if not isinstance(name, str):
        raise ScenarioError(f"a {kind}'s name is expected", path=path, value=name, allowed=list(entries(kind)))
    try:
        profile = load_profile(kind, name)
    except ScenarioError as error:
        # What is wrong inside the entry's own file has no place in this one.
        raise (error if error.file is not None else error.located(path=path)) from None
    kept = profile.model_dump(mode="json", exclude_none=True)
    kept["sources"] = {field: text for field, text in kept["sources"].items() if field not in changes}
    return {**kept, **changes}


def _resolve_network(reference: Any, base: Path) -> Any:
    """What is wrong inside a topology's own file has no place in this one."""
    try:
        return resolve_topology(reference, base)
    except ScenarioError as error:
        raise (error if error.file is not None else error.below("topology")) from None


def _resolve_files(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make what names a file or a folder independent of where we stand. A plain word under `model` is a name."""
    for key in ("tokenizer", "payload_law"):
        if isinstance(data.get(key), str) and data[key]:
            data[key] = absolute(data[key], base)
    model = data.get("model")
    if isinstance(model, str) and ("/" in model or model.startswith((".", "~"))):
        found = absolute(model, base)
        is_path = model.startswith((".", "~")) or Path(found).exists()  # else perhaps a Hugging Face id
        data["model"] = found if is_path else model
    return {key: with_absolute_files(value, base) for key, value in data.items()}
