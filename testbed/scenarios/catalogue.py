"""Where named things are found: the working directory's own folders first, then the catalogue that is shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from testbed.core.errors import ScenarioError, nearest_name

FOLDERS = {
    "device": Path("actors/devices"),
    "server": Path("actors/servers"),
    "link": Path("network_models/links"),
    "topology": Path("network_models/topologies"),
    "scenario": Path("scenarios"),
}
_PACKAGE = Path(__file__).parent.parent


def shipped_root() -> Path:
    """The catalogue inside the installed package, or the checkout's own folders in a development install."""
    installed = _PACKAGE / "_catalogue"
    return installed if installed.is_dir() else _PACKAGE.parent


def entries(kind: str) -> dict[str, Path]:
    """Name to file of every entry of a kind; the working directory wins over what is shipped."""
    found: dict[str, Path] = {}
    for root in (shipped_root(), Path.cwd()):
        found.update({path.stem: path for path in _yaml_files(root / FOLDERS[kind])})
    return dict(sorted(found.items()))


def _yaml_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(folder.glob("*.yaml"))


def find(kind: str, name: str) -> Path:
    """The file of a named entry.

    Raises ScenarioError with the names there are and the nearest one.
    """
    known = entries(kind)
    if name not in known:
        raise ScenarioError(f"unknown {kind}", value=name, allowed=list(known), nearest=nearest_name(name, known))
    return known[name]
