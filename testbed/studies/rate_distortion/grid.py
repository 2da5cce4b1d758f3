"""Which codec settings the study tries: data, by family. A new codec is a line here.

A setting is the text that scenarios use. Families are what a plot tells apart; entropy coders are tried within them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from testbed.core.errors import ScenarioError
from testbed.scenarios.codec_setting import CodecConfig, codec_name, read_setting, write_setting

DELTAS = (0.04, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.35)
BITS = (3, 4, 5, 6, 8)
FEW_DELTAS = (0.08, 0.16, 0.25, 0.35)
CODINGS = ("", "entropy=zstd", "entropy=rans", "entropy=rans,tables=agreed", "entropy=rans,tables=channel")
THRESHOLDS = ("tau=5", "tau=10", "quantile=0.99", "quantile=0.999", "per_row=2")
QMAX = (4, 6, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One codec setting and the family it counts to."""

    family: str
    codec: str


def full_grid() -> list[Setting]:
    """Everything: the plain choices that a user would try first, their rescues, and the two stages."""
    return _settings(
        ("raw", ["raw-bfloat16"]),
        ("FP8", ["fp8"]),
        *_uniform(BITS),
        ("TAB-Q", _coded(f"tabq(delta={delta})" for delta in DELTAS)),
        ("centre + TAB-Q", _coded(f"tabq(delta={delta},centre=true)" for delta in FEW_DELTAS)),
        ("Hadamard + TAB-Q", _coded(f"tabq(delta={delta},rotate=hadamard)" for delta in FEW_DELTAS)),
        ("TS + TAB-Q", _coded(f"ts-tabq(delta={delta},{tau})" for tau in THRESHOLDS for delta in FEW_DELTAS)),
    )


def standard_grid() -> list[Setting]:
    """The same families at fewer settings: enough to see who wins where."""
    return _settings(
        ("FP8", ["fp8"]),
        *_uniform((3, 4, 5)),
        ("TAB-Q", _coded(f"tabq(delta={delta})" for delta in FEW_DELTAS)),
        ("centre + TAB-Q", [f"tabq(delta={delta},centre=true,entropy=rans)" for delta in (0.16, 0.35)]),
        ("Hadamard + TAB-Q", [f"tabq(delta={delta},rotate=hadamard,entropy=rans)" for delta in (0.16, 0.35)]),
        ("TS + TAB-Q", _coded(f"ts-tabq(delta={delta},per_row=2)" for delta in FEW_DELTAS)),
        ("TS + TAB-Q", [f"ts-tabq(delta=0.35,{tau},entropy=rans)" for tau in ("tau=10", "quantile=0.999")]),
    )


def quick_grid() -> list[Setting]:
    """A setting or three of each family."""
    return _settings(
        ("FP8", ["fp8"]),
        ("uniform", [f"uniform(bits={bits})" for bits in (3, 4, 8)]),
        ("uniform asymmetric", [f"uniform(bits={bits},symmetric=false)" for bits in (3, 4)]),
        ("Hadamard + uniform", [f"uniform(bits={bits},rotate=hadamard)" for bits in (3, 4)]),
        ("centre + uniform", [f"uniform(bits={bits},centre=true)" for bits in (3, 4)]),
        ("TS + uniform", ["ts(below=uniform,bits=3,per_row=2)", "ts(below=uniform,bits=4,per_row=2)"]),
        ("TAB-Q", [f"tabq(delta={delta},entropy=rans)" for delta in (0.1, 0.2, 0.35)]),
        ("TS + TAB-Q", [f"ts-tabq(delta={delta},entropy=rans,per_row=2)" for delta in (0.1, 0.2, 0.35)]),
    )


def tau_ablation() -> list[Setting]:
    """How the threshold is chosen, at three tolerances; none is TAB-Q alone."""
    deltas = (0.1, 0.2, 0.35)
    taus = (*THRESHOLDS, "tau=2.5", "tau=20", "quantile=0.9", "per_row=1", "per_row=4")
    return _settings(
        ("no threshold", [f"tabq(delta={delta})" for delta in deltas]),
        *((tau, [f"ts-tabq(delta={delta},{tau})" for delta in deltas]) for tau in taus),
    )


def delta_ablation() -> list[Setting]:
    """The tolerance and the test that it belongs to."""
    means = (0.75, 1.5, 3, 6, 12)
    return _settings(
        ("int_l2", [f"ts-tabq(delta={delta},per_row=2)" for delta in DELTAS]),
        ("int_rel", [f"ts-tabq(delta={delta},test=int_rel,per_row=2)" for delta in DELTAS]),
        ("int_mean", [f"ts-tabq(delta={delta},test=int_mean,per_row=2)" for delta in means]),
    )


def qmax_ablation() -> list[Setting]:
    """The largest width at every tolerance."""
    return _settings(
        *((f"Qmax {qmax}", [f"ts-tabq(delta={delta},per_row=2,qmax={qmax})" for delta in DELTAS]) for qmax in QMAX)
    )


def split_ablation() -> list[Setting]:
    """A few settings, for every cut of the model."""
    return _settings(
        ("uniform", ["uniform(bits=4)"]),
        ("TAB-Q", ["tabq(delta=0.2)"]),
        ("TS + TAB-Q", ["ts-tabq(delta=0.2,per_row=2)"]),
    )


GRIDS = {
    "standard": standard_grid,
    "full": full_grid,
    "quick": quick_grid,
    "tau": tau_ablation,
    "delta": delta_ablation,
    "qmax": qmax_ablation,
    "split": split_ablation,
}
ABLATIONS = ("tau", "delta", "qmax", "split")


def named_settings(texts: Iterable[str]) -> list[Setting]:
    """Settings that a user wrote, each codec a family of its own. Raises ScenarioError for one that is none."""
    return _settings(*((codec_name(text), [text]) for text in texts))


def _uniform(widths: Iterable[int]) -> list[tuple[str, list[str]]]:
    """Uniform grids and what rescues them from outliers, packed and, as is only fair, entropy coded too."""
    options = {
        "uniform": "uniform(bits={bits}",
        "uniform asymmetric": "uniform(bits={bits},symmetric=false",
        "Hadamard + uniform": "uniform(bits={bits},rotate=hadamard",
        "centre + uniform": "uniform(bits={bits},centre=true",
        "TS + uniform": "ts(below=uniform,bits={bits},per_row=2",
    }
    return [
        (family, [text.format(bits=bits) + end for bits in widths for end in (")", ",entropy=rans)")])
        for family, text in options.items()
    ]


def _coded(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for coding in CODINGS:
            yield f"{text[:-1]},{coding})" if coding else text


def _settings(*families: tuple[str, Iterable[str]]) -> list[Setting]:
    """Every setting once, as the one text that stands for it."""
    found: dict[str, Setting] = {}
    for family, texts in families:
        for text in texts:
            codec = write_setting(_checked(text))
            found.setdefault(codec, Setting(family=family, codec=codec))
    return list(found.values())


def _checked(text: str) -> CodecConfig:
    try:
        return read_setting(text)
    except ScenarioError as error:
        raise error.located(path=text) from None
