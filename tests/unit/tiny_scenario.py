"""The smallest modelled scenario, files of it, and the command line called in this process."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from testbed.cli import app

# A shape without weights: nothing here computes with torch.
TINY: dict[str, Any] = {
    "name": "tiny",
    "model": "llama-3.2-1b",
    "seed": 3,
    "policy": {"kind": "static", "split": 4, "codec": "int8"},
    "fleet": [{"name": "pis", "device": "raspberry-pi-5", "count": 2, "link": "wifi"}],
    "servers": [{"name": "cloud", "server": "l4"}],
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_device": "1 /s", "requests_per_device": 2},
        "prompts": {"kind": "random", "length": {"law": "fixed", "value": 8}},
        "output_tokens": {"law": "fixed", "value": 4},
    },
}
GONE = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What a command line did."""

    code: int
    out: str
    err: str
    error: BaseException | None


def call(*arguments: str | Path) -> Called:
    """`testbed ARGUMENTS` in this process; its streams are no terminal."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    error = None if isinstance(result.exception, SystemExit) else result.exception
    return Called(code=result.exit_code, out=result.stdout, err=result.stderr, error=error)


def tiny(*changes: tuple[str, Any]) -> dict[str, Any]:
    """TINY with the values at some dotted paths set, or taken away by GONE."""
    data = copy.deepcopy(TINY)
    for path, value in changes:
        *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        node: Any = data
        for key in parents:
            node = node[key]
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return data


def write(file: Path, data: Any) -> Path:
    """Plain data as a YAML file, or a text as it is."""
    file.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return file


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file with its content, and every folder, but tools' own: what must stay as it was."""
    found = [path for top in folder.iterdir() if not top.name.startswith(".") for path in (top, *top.rglob("*"))]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in found}
