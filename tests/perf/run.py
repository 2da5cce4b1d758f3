"""Run every benchmark, print one table, write build/bench.json: ``python -m tests.perf.run``.

A benchmark is a file ``bench_*.py`` in this folder with ``measure() -> list[dict]``, a dict per figure: `name`,
`value`, `unit`, and the yardstick it is read against, `yardstick_name` and `yardstick_value` (both None where there is
none).
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

KEYS = ("name", "value", "unit", "yardstick_name", "yardstick_value")
HERE = Path(__file__).parent
RESULT = HERE.parent.parent / "build" / "bench.json"


def measurements(folder: Path) -> Iterator[dict[str, Any]]:
    """The checked rows of every benchmark in a folder, file by file in order of name."""
    for path in sorted(folder.glob("bench_*.py")):
        for row in _module(path).measure():
            yield checked(row, path.name)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"tests.perf.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checked(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row with its keys in order, or a ValueError that says what is wrong with it."""
    if set(row) != set(KEYS):
        raise ValueError(f"{where}: a row has the keys {', '.join(KEYS)} (got {', '.join(row)})")
    if not _is_figure(row["value"]):
        raise ValueError(f"{where}: {row['name']}: value must be a finite number (got {row['value']!r})")
    if (row["yardstick_name"] is None) != (row["yardstick_value"] is None):
        raise ValueError(f"{where}: {row['name']}: a yardstick has both a name and a value, or neither")
    if row["yardstick_value"] is not None and not _is_figure(row["yardstick_value"]):
        raise ValueError(f"{where}: {row['name']}: yardstick_value must be a finite number or None")
    return {key: row[key] for key in KEYS}


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as aligned text, with the ratio of each figure to its yardstick."""
    cells = [("benchmark", "value", "unit", "yardstick", "value", "ratio"), *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(_aligned(line, widths) for line in cells)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    name, yardstick = row["yardstick_name"], row["yardstick_value"]
    if name is None:
        return (row["name"], _figure(row["value"]), row["unit"], "", "", "")
    ratio = f"{row['value'] / yardstick:.3g}" if yardstick else "-"
    return (row["name"], _figure(row["value"]), row["unit"], name, _figure(yardstick), ratio)


def _figure(value: float) -> str:
    """Four digits at least, and no exponent where a person would not write one."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """Text to the left, figures to the right."""
    figures = {1, 4, 5}
    columns = [
        cell.rjust(width) if column in figures else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(columns).rstrip()


def main(folder: Path = HERE, result: Path = RESULT) -> None:
    """Measure, write, print; a benchmark that fails ends the run with its error."""
    rows = list(measurements(folder))
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
