"""The study: every codec setting at every cut in both phases, each finished point kept in the folder at once.

``study.json`` says what was asked, ``points.jsonl`` has a line for each point; an interrupted study goes on where it
stopped. ``points.csv`` and ``front.json`` are written at the end.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.core.errors import ScenarioError, TestbedError
from testbed.models.source import ModelSource
from testbed.results.pareto import UNSPLIT, Point, front, winners
from testbed.studies.rate_distortion.crossing import DAMAGE, SplitInputs, Traffic, split_inputs
from testbed.studies.rate_distortion.grid import Setting
from testbed.studies.rate_distortion.yardstick import Yardstick

STUDY_FILE, POINTS_FILE, TABLE_FILE, FRONT_FILE = "study.json", "points.jsonl", "points.csv", "front.json"
_MUST_AGREE = ("model", "measured_on")

Observe = Callable[[str, int, int], None]  # what is being done, points done and points in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is asked: each setting at each cut in each phase, measured on a yardstick."""

    source: ModelSource
    yardstick: Yardstick
    cuts: Sequence[int]
    settings: Sequence[Setting]
    phases: Sequence[str]

    def check(self) -> None:
        """Raise ScenarioError where a cut has no layers on one side."""
        last = self.source.shape.num_layers - 1
        for cut in self.cuts:
            if not 1 <= cut <= last:
                raise ScenarioError("nothing crosses this cut", path="--splits", value=cut, allowed=f"1 to {last}")

    def described(self) -> dict[str, Any]:
        """As JSON types."""
        shape = self.source.shape
        return {
            "model": self.source.name,
            "hidden_size": shape.hidden_size,
            "num_layers": shape.num_layers,
            "measured_on": self.yardstick.described(),
        }


def run_study(study: Study, folder: Path, observe: Observe) -> list[Point]:
    """All points asked for, in their order; those that the folder holds already are not measured again.

    `observe` is told of every finished point. A codec that can't take the hidden states is a point that says why.
    """
    study.check()
    known = _opened(study, folder)
    points: list[Point] = []
    with (folder / POINTS_FILE).open("a", encoding="utf-8") as file:
        for cut in study.cuts:
            for count, point in enumerate(_points_of(study, cut, known), start=1):
                if _key(point) not in known:
                    file.write(json.dumps(point) + "\n")
                    file.flush()
                    known[_key(point)] = point
                points.append(point)
                observe(f"cut {cut}", count, 1 + len(study.settings) * len(study.phases))
    _write_tables(points, folder)
    return points


def read_points(folder: Path) -> tuple[dict[str, Any], list[Point]]:
    """What a study left in a folder: what was asked and every point. Raises ScenarioError where there is none."""
    try:
        asked = json.loads((folder / STUDY_FILE).read_text(encoding="utf-8"))
        lines = (folder / POINTS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ScenarioError(f"no study to be read: {error}", file=folder) from None
    return asked, list(_whole(lines))


def _points_of(study: Study, cut: int, known: Mapping[tuple[Any, ...], Point]) -> Iterator[Point]:
    """A cut's points; both sides are loaded only where one is missing."""
    wanted = [(Setting(family=UNSPLIT, codec="raw-float32"), study.phases[0])]
    wanted += [(setting, phase) for setting in study.settings for phase in study.phases]
    inputs: SplitInputs | None = None
    for setting, phase in wanted:
        key = (cut, setting.family, setting.codec, phase)
        if key in known:
            yield known[key]
            continue
        if inputs is None:
            inputs = split_inputs(study.source, cut, study.yardstick)
            inputs.known |= {
                one["decoded"]: _damage(one) for one in known.values() if one["split"] == cut and not one["failed"]
            }
        yield _measured(inputs, cut, setting, phase)


def _measured(inputs: SplitInputs, cut: int, setting: Setting, phase: str) -> Point:
    point: Point = {"split": cut, "family": setting.family, "codec": setting.codec, "phase": phase, "failed": None}
    try:
        crossed = inputs.cross(setting.codec, phase)
    except TestbedError as error:
        return {**point, "failed": str(error)}
    return {**point, **rates(crossed.traffic), **inputs.damage(crossed.hidden)}


def _damage(point: Point) -> Point:
    return {name: point[name] for name in DAMAGE}


def rates(traffic: Traffic) -> dict[str, float]:
    """Bits a value of all bytes, and of those that hold values: without frames, scales and widths."""
    held = traffic.sparse_bytes + traffic.payload_bytes
    return {
        "bits_per_value": 8 * traffic.total_bytes / traffic.values,
        "bits_without_side": 8 * held / traffic.values,
        "bytes_per_token": traffic.total_bytes / traffic.tokens,
        **{name: float(value) for name, value in asdict(traffic).items()},
    }


def _opened(study: Study, folder: Path) -> dict[tuple[Any, ...], Point]:
    """The folder, made or found to be of this study, and its points by their key."""
    asked = study.described()
    if not (folder / STUDY_FILE).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ScenarioError("exists and holds no study", file=folder, allowed="another --output")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STUDY_FILE).write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")
        return {}
    found, points = read_points(folder) if (folder / POINTS_FILE).exists() else (asked, [])
    for name in _MUST_AGREE:
        if found.get(name) != asked[name]:
            raise ScenarioError(
                "the folder holds a study of something else",
                file=folder,
                path=name,
                value=asked[name],
                allowed=f"{found.get(name)}, or another --output",
            )
    # Written anew, so that what an interruption cut short does not spoil the next line.
    (folder / POINTS_FILE).write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")
    return {_key(point): point for point in points}


def _whole(lines: Sequence[str]) -> Iterator[Point]:
    """Points; what an interruption cut short is measured again."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _key(point: Point) -> tuple[Any, ...]:
    return point["split"], point["family"], point["codec"], point["phase"]


def _write_tables(points: Sequence[Point], folder: Path) -> None:
    columns = list(dict.fromkeys(name for point in points for name in point))
    with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(points)
    fronts = {"front": front(points), "winners": winners(points)}
    (folder / FRONT_FILE).write_text(json.dumps(fronts, indent=1) + "\n", encoding="utf-8")
