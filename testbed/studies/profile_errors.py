"""How far the shipped profiles are from public measurements: ``python -m testbed.studies.profile_errors``.

Prints predicted against measured tokens/s per profile and row, and the errors over the rows that the profile was not
fitted on (`profile_fit.FITS` names those). ``--fit`` prints the fit anew.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from testbed.core.errors import ScenarioError
from testbed.scenarios.catalogue import entries
from testbed.scenarios.load import load_profile
from testbed.scenarios.profiles import ProcessorProfile
from testbed.studies.profile_data.read import read_all
from testbed.studies.profile_data.rows import LeftOut, Measurement, Row
from testbed.studies.profile_fit import FITS, is_fitted, predict_seconds, refit
from testbed.studies.table_errors import Comparison, compare, comparison_table, held_out_rows

COMMAND = "python -m testbed.studies.profile_errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One measurement beside its prediction."""

    measurement: Measurement
    predicted_tokens_per_s: float
    fitted: bool

    @property
    def error(self) -> float:
        """Relative error of the speed: +0.1 when the profile is 10 % too fast."""
        return self.predicted_tokens_per_s / self.measurement.tokens_per_s - 1


def profiles() -> dict[str, ProcessorProfile]:
    """Every device and server of the catalogue."""
    found = [load_profile(kind, name) for kind in ("device", "server") for name in entries(kind)]
    return {profile.name: profile for profile in found if isinstance(profile, ProcessorProfile)}


def check_all(rows: Iterable[Row], known: Mapping[str, ProcessorProfile]) -> list[Check]:
    """Every measurement with its prediction, in the order of the profiles."""
    checks = [
        Check(
            measurement=row,
            predicted_tokens_per_s=row.tokens / predict_seconds(known[row.profile], row),
            fitted=is_fitted(row),
        )
        for row in rows
        if isinstance(row, Measurement)
    ]
    order = list(known)
    return sorted(checks, key=lambda check: order.index(check.measurement.profile))


def median_error(checks: Iterable[Check]) -> float:
    """Median absolute relative error; NaN of no rows."""
    errors = [abs(check.error) for check in checks]
    return median(errors) if errors else math.nan


def grouped(checks: Iterable[Check]) -> dict[tuple[str, str, str], list[Check]]:
    """Checks by profile, data set and kind."""
    groups: dict[tuple[str, str, str], list[Check]] = defaultdict(list)
    for check in checks:
        groups[check.measurement.profile, check.measurement.dataset, check.measurement.kind].append(check)
    return dict(groups)


Table = tuple[Sequence[str], list[Sequence[str]]]


def summary_table(checks: Iterable[Check], known: Mapping[str, ProcessorProfile]) -> Table:
    """Errors over held-out rows by profile, data set and kind; profiles without a measurement say so."""
    groups = grouped(checks)
    lines: list[Sequence[str]] = []
    for name in known:
        own = [(key, rows) for key, rows in groups.items() if key[0] == name]
        if not own:
            lines.append((name, "", "", "0", "0", "not checked", ""))
        for (_, dataset, kind), rows in own:
            held_out = [check for check in rows if not check.fitted]
            worst = max((abs(check.error) for check in held_out), default=math.nan)
            counts = (str(len(rows) - len(held_out)), str(len(held_out)))
            lines.append((name, dataset, kind, *counts, _percent(median_error(held_out)), _percent(worst)))
    return ("profile", "data set", "kind", "fitted", "held out", "median |error|", "max |error|"), lines


def rows_table(checks: Iterable[Check]) -> Table:
    """Every measurement beside its prediction."""
    lines: list[Sequence[str]] = [
        (
            check.measurement.profile,
            check.measurement.dataset,
            check.measurement.label,
            check.measurement.kind,
            f"{check.measurement.bits:g}",
            f"{check.predicted_tokens_per_s:.4g}",
            f"{check.measurement.tokens_per_s:.4g}",
            f"{check.error:+.1%}",
            "fitted" if check.fitted else "",
        )
        for check in checks
    ]
    columns = ("profile", "data set", "measurement", "kind", "bits", "predicted tokens/s", "measured", "error", "used")
    return columns, lines


def left_out_table(rows: Iterable[Row]) -> Table:
    """How many rows of each data set are left out, and why."""
    counts = Counter((row.dataset, row.reason) for row in rows if isinstance(row, LeftOut))
    lines: list[Sequence[str]] = [(dataset, reason, str(count)) for (dataset, reason), count in sorted(counts.items())]
    return ("data set", "left out because", "rows"), lines


def fit_table(fitted: Mapping[str, Mapping[str, float]]) -> Table:
    """Fitted numbers in base units (B/s, FLOP/s, ns), three digits."""
    lines: list[Sequence[str]] = [
        (name, parameter, f"{value:.3g}", str(len(FITS[name].rows)))
        for name, values in fitted.items()
        for parameter, value in values.items()
    ]
    return ("profile", "number", "fitted value (B/s, FLOP/s, ns)", "rows"), lines


def as_text(table: Table) -> str:
    columns, lines = table
    widths = [max(len(cell) for cell in column) for column in zip(columns, *lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in (columns, *lines))


def as_markdown(table: Table) -> str:
    columns, lines = table
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *lines))


def report(rows: Sequence[Row], compared: Sequence[Comparison], *, markdown: bool) -> Iterator[str]:
    """The whole report, paragraph by paragraph."""
    known = profiles()
    checks = check_all(rows, known)
    write = as_markdown if markdown else as_text
    title = "## {}" if markdown else "{}"
    yield title.format("Errors on held-out rows")
    yield write(summary_table(checks, known))
    yield title.format("Rooflines and tables on the same held-out rows")
    yield write(comparison_table(compared))
    yield title.format("Left out")
    yield write(left_out_table(rows))
    yield title.format("Every row")
    yield write(rows_table(checks))


def compare_all(data: Path) -> list[Comparison]:
    """Rooflines and tables; ScenarioError where a measurement is missing."""
    known = profiles()
    try:
        return compare(held_out_rows(data, known), known)
    except FileNotFoundError as error:
        raise ScenarioError("no such measurement file", file=error.filename) from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the measurements")
    parser.add_argument("--markdown", action="store_true", help="tables as docs/results/profile-errors.md holds them")
    parser.add_argument("--fit", action="store_true", help="fit the profiles anew and print the numbers")
    options = parser.parse_args(arguments)
    try:
        rows = list(read_all(options.data))
        if options.fit:
            paragraphs: Iterable[str] = [as_text(fit_table(refit(rows, profiles())))]
        else:
            paragraphs = report(rows, compare_all(options.data), markdown=options.markdown)
        sys.stdout.write("\n\n".join(paragraphs) + "\n")
    except ScenarioError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


if __name__ == "__main__":
    sys.exit(main())
