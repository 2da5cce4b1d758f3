"""Public measurements as profile tables: ``python -m testbed.studies.profile_tables --data DATA --out FOLDER``.

Writes one JSON file for each device, model and number of processors, to be named by a profile's `profile_table`
(docs/profiles.md). The measurements and the tables made of them are not part of the project.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.core.errors import ScenarioError
from testbed.studies.profile_data.tables import all_tables
from testbed.studies.profile_errors import profiles

COMMAND = "python -m testbed.studies.profile_tables"


def write_tables(data: Path, folder: Path) -> list[Path]:
    """Every table under its name; ScenarioError where a measurement is missing."""
    try:
        tables = list(all_tables(data, profiles()))
    except FileNotFoundError as error:
        raise ScenarioError("no such measurement file", file=error.filename) from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        path = folder / f"{table.name.lower().replace(' ', '-')}.json"
        path.write_text(table.model_dump_json(exclude_none=True) + "\n", encoding="utf-8")
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the measurements")
    parser.add_argument("--out", type=Path, default=Path("profile_tables"), help="folder for the tables")
    options = parser.parse_args(arguments)
    try:
        for path in write_tables(options.data, options.out):
            sys.stdout.write(f"{path}\n")
    except ScenarioError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
