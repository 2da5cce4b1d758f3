"""A group of several classes of devices: ``mix: [{device: pixel-8, share: 70 %}, {device: laptop, share: 30 %}]``.

Each class becomes a group of its own before anything else is read, named ``<group>.<class>``; what an entry says beside
`share` and `name` replaces what the group says. With ``mix_draw: exact`` the classes get whole shares of `count` by
Webster's method, which gives one more device to one class when `count` grows by one and takes none away. With
``mix_draw: random`` every device draws its class, by the key (seed, group, device). Either way another device changes
nobody's draws.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

from testbed.core.errors import ScenarioError, nearest_name
from testbed.core.rng import Stream, entity_key
from testbed.core.units import parse_exactly

DRAWS = ("exact", "random")
_PLACE = re.compile(r"fleet\[(\d+)\](?:\.(\w+))?")
_TOLERANCE = Fraction(1, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """Where a group of the expanded fleet is written."""

    group: int
    entry: int | None = None
    keys: frozenset[str] = frozenset()


class Expansion:
    """A fleet without mixes, and where each of its groups was written."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = dict(data)
        self._origins: list[_Origin] = []
        fleet = data.get("fleet")
        if not isinstance(fleet, list) or not any(isinstance(item, Mapping) and "mix" in item for item in fleet):
            return
        self.data["fleet"] = [group for index, item in enumerate(fleet) for group in self._groups(index, item)]

    def written(self, error: ScenarioError) -> ScenarioError:
        """The same error with the path that the user wrote."""
        found = None if error.path is None or not self._origins else _PLACE.match(error.path)
        if found is None or error.path is None:
            return error
        origin, key = self._origins[int(found[1])], found[2]
        place = f"fleet[{origin.group}]"
        if origin.entry is not None and key in origin.keys:
            place += f".mix[{origin.entry}]"
        path = place + (f".{key}" if key else "") + error.path[found.end() :]
        return ScenarioError(error.problem, file=error.file, path=path, value=error.value, allowed=error.allowed,
                             nearest=error.nearest)  # fmt: skip

    def _groups(self, index: int, item: Any) -> list[Any]:
        if not isinstance(item, Mapping) or "mix" not in item:
            self._origins.append(_Origin(group=index))
            return [item]
        path = f"fleet[{index}]"
        name, count, entries = _checked(item, path)
        rest = {key: value for key, value in item.items() if key not in {"mix", "mix_draw", "name", "count"}}
        counts = self._counts(name, count, _shares(entries, path), item.get("mix_draw", "exact"), path)
        groups = []
        for place, (entry, members) in enumerate(zip(entries, counts, strict=True)):
            if members:
                changes = {key: value for key, value in entry.items() if key not in {"share", "name"}}
                keys = frozenset(changes) | {"device"}
                self._origins.append(_Origin(group=index, entry=place, keys=keys))
                groups.append({**rest, **changes, "name": f"{name}.{_class_name(entry, place)}", "count": members})
        return groups

    def _counts(self, name: str, count: int, shares: Sequence[Fraction], draw: object, path: str) -> list[int]:
        if draw not in DRAWS:
            near = nearest_name(draw, DRAWS) if isinstance(draw, str) else None
            problem = "not one of the choices"
            raise ScenarioError(problem, path=f"{path}.mix_draw", value=draw, allowed=DRAWS, nearest=near)
        if draw == "exact":
            return webster(shares, count)
        seed = self.data.get("seed")
        if type(seed) is not int:
            return webster(shares, count)  # validation says what is wrong with the seed
        stream, ends = Stream.named(seed, "fleet.mix"), [float(end) for end in accumulate(shares)][:-1]
        drawn = [sum(stream.uniform(entity_key(name, place), 0) >= end for end in ends) for place in range(count)]
        return [drawn.count(place) for place in range(len(shares))]


def webster(shares: Sequence[Fraction], count: int) -> list[int]:
    """Whole numbers that add up to `count`: each next one goes where share / (2 got + 1) is largest, first of equals.

    Starts from ``round(share x)``, where the same rule stands after its first steps.
    """
    start = max(0, count - len(shares))
    counts = [int(share * start + Fraction(1, 2)) for share in shares]
    while sum(counts) < count:
        best = max(range(len(shares)), key=lambda place: (shares[place] / (2 * counts[place] + 1), -place))
        counts[best] += 1
    return counts


def _checked(item: Mapping[str, Any], path: str) -> tuple[str, int, Sequence[Mapping[str, Any]]]:
    """Name, count and entries, as far as the expansion needs them."""
    entries, name, count = item["mix"], item.get("name"), item.get("count")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, Mapping) for entry in entries):
        allowed = "entries with a device and a share"
        raise ScenarioError("a list of device classes is expected", path=f"{path}.mix", allowed=allowed)
    if "device" in item:
        raise ScenarioError("a group has a device or a mix of them", path=f"{path}.device", allowed="one of both")
    if not isinstance(name, str):
        raise ScenarioError("a text is expected", path=f"{path}.name", value=name)
    if type(count) is not int or count < 1:
        raise ScenarioError("not a number of devices", path=f"{path}.count", value=count, allowed="at least 1")
    return name, count, entries


def _shares(entries: Sequence[Mapping[str, Any]], path: str) -> list[Fraction]:
    shares = []
    for place, entry in enumerate(entries):
        where = f"{path}.mix[{place}]"
        for key in ("device", "share"):
            if key not in entry:
                raise ScenarioError("required key is missing", path=f"{where}.{key}")
        try:
            share = parse_exactly(entry["share"], "ratio")
        except ScenarioError as error:
            raise error.located(path=f"{where}.share") from None
        if share <= 0:
            raise ScenarioError("ratio too small", path=f"{where}.share", value=entry["share"], allowed="more than 0")
        shares.append(share)
    total = sum(shares, Fraction(0))
    if abs(total - 1) > _TOLERANCE:
        told = f"{float(total):g}"
        raise ScenarioError("the shares don't add up to 1", path=f"{path}.mix", value=told, allowed="a sum of 1")
    return shares


def _class_name(entry: Mapping[str, Any], place: int) -> str:
    """Its own, else its device's."""
    device = entry["device"]
    known = device.get("use", device.get("name")) if isinstance(device, Mapping) else device
    return str(entry.get("name", known if isinstance(known, str) else place))
