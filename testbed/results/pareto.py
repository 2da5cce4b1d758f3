"""Who wins where, computed from points: Pareto fronts, and the fewest bits that stay within a limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Point = dict[str, Any]
RATE, DISTORTION = "bits_per_value", "kl_nats"
KL_LIMITS = (0.001, 0.003, 0.01, 0.03, 0.1)  # nats a token
ACCURACY_LOSS = 0.01  # one point
UNSPLIT = "unsplit"


def groups(points: Sequence[Point]) -> Iterator[tuple[int, str, list[Point]]]:
    """Points of one cut and phase that say something, without the unsplit model's."""
    for split, phase in dict.fromkeys((point["split"], point["phase"]) for point in points):
        own = [point for point in points if (point["split"], point["phase"]) == (split, phase)]
        yield split, phase, [point for point in own if point["family"] != UNSPLIT and _is_measured(point)]


def pareto(points: Sequence[Point], rate: str = RATE, distortion: str = DISTORTION) -> list[Point]:
    """The points that no other beats in both, by rising rate; of equal ones the first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one[rate], one[distortion])):
        if not best or point[distortion] < best[-1][distortion]:
            best.append(point)
    return best


def front(points: Sequence[Point]) -> list[Point]:
    """The fronts of bits a value in all against KL, of each cut and phase."""
    return [point for _, _, own in groups(points) for point in pareto(own)]


def winners(points: Sequence[Point]) -> list[Point]:
    """For each cut, phase and limit the setting of fewest bits that keeps it, and the best one of another family.

    A limit is on KL, or "accuracy" within a point of the unsplit model's on the same items.
    """
    found = []
    for split, phase, own in groups(points):
        exact = next((one for one in points if one["family"] == UNSPLIT and one["split"] == split), None)
        for limit, kept in _kept(own, exact):
            ordered = sorted(kept, key=lambda one: float(one[RATE]))
            first = ordered[0] if ordered else None
            other = next((one for one in ordered if first is not None and one["family"] != first["family"]), None)
            found.append({"split": split, "phase": phase, "limit": limit, **_named(first), **_named(other, "next_")})
    return found


def _kept(points: Sequence[Point], exact: Point | None) -> Iterator[tuple[str, list[Point]]]:
    for limit in KL_LIMITS:
        yield f"KL <= {limit:g}", [point for point in points if point[DISTORTION] <= limit]
    if exact is not None and exact.get("accuracy") is not None:
        least = exact["accuracy"] - ACCURACY_LOSS
        yield "accuracy", [point for point in points if point["accuracy"] >= least]


def _named(point: Point | None, prefix: str = "") -> dict[str, Any]:
    names = ("family", "codec", RATE, DISTORTION, "accuracy")
    return {prefix + name: None if point is None else point[name] for name in names}


def _is_measured(point: Point) -> bool:
    return point["failed"] is None and point[DISTORTION] is not None
