"""Prints how the two resolutions agree: ``python -m tests.resolutions.table`` from the repository root."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.resolutions.grid import KINDS, agreement, refusal

HEADINGS = ("transport", "links", "refused", "messages", "equal to the ns", "mean delay apart by", "p95 delay apart by")


def cells(kind: str, folder: Path) -> tuple[str, ...]:
    """One row of the table, measured."""
    if reason := refusal(kind):
        return (kind, "0", f"all: {reason}", "", "", "", "")
    found = agreement(kind, folder)
    errors = (f"{error:.1%}" if error else "0" for error in (found.mean_error, found.p95_error))
    refused = "; ".join(f"{count}: {reason}" for reason, count in found.refused.items())
    return (kind, str(found.links), refused or "0", str(found.messages), str(found.equal), *errors)


def main() -> None:
    """Measures every transport and writes the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [HEADINGS, ("---",) * len(HEADINGS), *(cells(kind, Path(folder)) for kind in KINDS)]
    for row in rows:
        sys.stdout.write("| " + " | ".join(row) + " |\n")


if __name__ == "__main__":
    main()
