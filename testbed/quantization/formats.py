"""How a weight matrix is stored, and how many bits that takes: the law behind every byte of packed weights.

A matrix of R rows (outputs) and C columns (inputs) at Q bits takes

    R C Q + G (16 + Q) bits,   G = R ceil(C / g) groups

where every group of g columns of a row has a 16-bit scale and, unless the format is symmetric, a Q-bit zero point
[our design: the published text gives no side information]. Where g divides C, this is the method's
B_w = P Q + (P / g)(16 + Q) with P = R C; where it doesn't, the last group of a row is shorter. A matrix that keeps K
outlier channels at 8 bits is two such matrices, of C - K columns and of K, and a 32-bit place for each of its C inputs.
No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from testbed.core.errors import ModelError

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
SCALE_BITS = 16
ROWS_PER_BUNDLE = 8  # rows are packed eight at a time, so that any number of bits fills whole bytes
SMOOTH_BITS = 32  # per input channel
ORDER_BITS = 32  # per input channel
WHOLE_BITS = 8  # the only width of FP8 and of SmoothQuant's W8A8


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """One way to store a matrix; `group_size` None is one group a row (per output channel).

    `kind` "affine" is code times scale with an integer zero point, "e4m3" the 8-bit float of OCP's FP8. With `smooth`,
    the matrix keeps one factor per input channel that the input is divided by. `clip` is the share of a group's range
    that its grid spans. With `outliers`, so many input channels are put last, in an order that is kept with the matrix,
    and stored as OUTLIERS says; the format is then that of the others, its groups counted in the new order.
    """

    bits: int
    group_size: int | None = None
    symmetric: bool = False
    kind: Literal["affine", "e4m3"] = "affine"
    smooth: bool = False
    clip: float = 1.0
    outliers: int = 0

    @property
    def body(self) -> WeightFormat:
        """The format of the channels that are no outliers."""
        return replace(self, outliers=0)

    def body_columns(self, columns: int) -> int:
        """Of these columns, those that are no outliers."""
        return columns - self.outliers

    @property
    def has_zero_points(self) -> bool:
        return self.kind == "affine" and not self.symmetric

    def groups(self, columns: int) -> int:
        """Groups of one row."""
        return 1 if self.group_size is None else -(-columns // self.group_size)

    def matrix_bits(self, rows: int, columns: int) -> int:
        """Bits of one matrix by the law; what is stored adds at most seven rows of padding."""
        if self.outliers:
            body = self.body.matrix_bits(rows, self.body_columns(columns))
            return body + OUTLIERS.matrix_bits(rows, self.outliers) + columns * ORDER_BITS
        side = SCALE_BITS + (self.bits if self.has_zero_points else 0)
        smooth_bits = columns * SMOOTH_BITS if self.smooth else 0
        return rows * columns * self.bits + rows * self.groups(columns) * side + smooth_bits

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes of the tensors that hold the matrix: the law, with rows padded to whole bundles."""
        if self.outliers:
            parts = self.body.stored_bytes(rows, self.body_columns(columns)) + OUTLIERS.stored_bytes(
                rows, self.outliers
            )
            return parts + columns * ORDER_BITS // 8
        bundles = -(-rows // ROWS_PER_BUNDLE)
        codes = rows * columns if self.kind == "e4m3" else bundles * self.bits * columns
        zeros = bundles * self.bits * self.groups(columns) if self.has_zero_points else 0
        smooth = columns * SMOOTH_BITS // 8 if self.smooth else 0
        return codes + rows * self.groups(columns) * SCALE_BITS // 8 + zeros + smooth

    def check(self, *, columns: Iterable[int] = ()) -> WeightFormat:
        """The format itself, or a ModelError for bits or a group size that don't fit rows of these lengths."""
        _one_of("weight bits", self.bits, BITS)
        if self.kind == "e4m3" and (self.bits != WHOLE_BITS or self.group_size is not None):
            raise ModelError("FP8 is 8 bits with one scale a row", value=f"{self.bits} bits, group {self.group_size}")
        if not 0 < self.clip <= 1:
            raise ModelError("weights keep no such share of their range", value=self.clip, allowed="0 < clip <= 1")
        lengths = list(columns)
        self._check_outliers(min(lengths, default=None))
        _check_group(self.group_size, map(self.body_columns, lengths), "one group a row")
        return self

    def _check_outliers(self, shortest: int | None) -> None:
        if self.outliers < 0 or (shortest is not None and self.outliers >= shortest):
            raise ModelError(
                "a matrix has no more input channels than are to be outliers",
                path="outlier_channels",
                value=self.outliers,
                allowed="at least 1" if shortest is None else f"1 to {shortest - 1}",
            )


OUTLIERS = WeightFormat(bits=8, symmetric=True)  # weights of outlier channels: one scale a row


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationFormat:
    """How a layer's input is rounded before it is multiplied: per token, and per group of channels where there are any.

    `group_size` None is one grid a token. `clip` is the share of a group's range that its grid spans. Inputs live for
    one product only, so this takes no memory of its own and saves none.
    """

    bits: int
    group_size: int | None = None
    symmetric: bool = True
    clip: float = 1.0

    def check(self, *, columns: Iterable[int] = ()) -> ActivationFormat:
        """The format itself, or a ModelError for what doesn't fit inputs of so many channels."""
        _one_of("activation bits", self.bits, BITS)
        if not 0 < self.clip <= 1:
            raise ModelError("activations keep no such share of their range", value=self.clip, allowed="0 < clip <= 1")
        _check_group(self.group_size, columns, "one grid a token")
        return self


OUTLIER_INPUTS = ActivationFormat(bits=8)  # of outlier channels, wherever the others are rounded


def format_of(
    method: str,
    bits: int,
    *,
    group_size: int | None,
    symmetric: bool,
    outliers: int | None = None,
    clip: float | None = None,
    transform: bool = True,
) -> WeightFormat:
    """The format that a method gives a decoder layer's matrices; None stands for what it was published with.

    `transform` is whether OmniQuant's keep factors.
    FP8 and SmoothQuant have one format each and take neither groups nor other widths, and only Atom keeps outlier
    channels: ModelError.
    """
    if outliers is not None and method != "atom":
        raise ModelError(f"{method} keeps no outlier channels", path="outlier_channels", value=outliers, allowed="null")
    if method not in _WHOLE:
        own = _OWN.get(method, WeightFormat(bits=bits))
        kept, share = own.outliers if outliers is None else outliers, own.clip if clip is None else clip
        fmt = WeightFormat(bits=bits, group_size=group_size, symmetric=symmetric, clip=share, outliers=kept)
        return replace(fmt, smooth=method == "omniquant" and transform).check()
    if bits != WHOLE_BITS or group_size is not None:
        problem = f"{method} has one format: 8 bits with one scale a row"
        raise ModelError(problem, value=f"{bits} bits, group size {group_size}", allowed="8 bits, group size null")
    return _WHOLE[method]


def inputs_of(method: str) -> ActivationFormat | None:
    """How a method rounds the inputs of the layers that it packs, where nothing else is said."""
    return _INPUTS.get(method)


def input_format_of(
    method: str, bits: int, *, group_size: int | None, symmetric: bool, clip: float | None = None
) -> ActivationFormat:
    """How inputs are rounded to so many bits under a method; `clip` None is what it was published with."""
    share = _INPUT_CLIPS.get(method, 1.0) if clip is None else clip
    return ActivationFormat(bits=bits, group_size=group_size, symmetric=symmetric, clip=share).check()


_OWN: Mapping[str, WeightFormat] = {"atom": WeightFormat(bits=4, clip=0.85, outliers=128)}
_WHOLE: Mapping[str, WeightFormat] = {
    "fp8": WeightFormat(bits=8, symmetric=True, kind="e4m3"),
    "smoothquant": WeightFormat(bits=8, symmetric=True, smooth=True),
}

_INPUT_CLIPS: Mapping[str, float] = {"atom": 0.9}
_INPUTS: Mapping[str, ActivationFormat] = {"smoothquant": ActivationFormat(bits=8)}


def _check_group(group_size: int | None, columns: Iterable[int], whole: str) -> None:
    if group_size is None:
        return
    _one_of("group size", group_size, GROUP_SIZES)
    shortest = min(columns, default=group_size)
    if group_size > shortest:
        raise ModelError(
            "the group is longer than a row of the model's matrices",
            value=group_size,
            allowed=f"at most {shortest}, or null for {whole}",
        )


def _one_of(what: str, value: int, allowed: tuple[int, ...]) -> None:
    if value not in allowed:
        raise ModelError(f"no such {what}", value=value, allowed=[str(item) for item in allowed])
