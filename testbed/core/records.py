"""Records that are kept as columns: a million of them without a million objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

Record = TypeVar("Record")
Column = npt.NDArray[Any]


class Records(Sequence[Record], Generic[Record]):
    """A sequence whose items are made when they are asked for; fields without a column are at their default."""

    def __init__(self, kind: type[Record], columns: Mapping[str, Column]) -> None:
        self._kind = kind
        self._columns = dict(columns)
        self._length = len(next(iter(self._columns.values()), ()))

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._kind(**{name: column.item(index) for name, column in self._columns.items()})

    def column(self, name: str) -> Column:
        """All values of a field."""
        if name in self._columns:
            return self._columns[name]
        default = self._kind.__dataclass_fields__[name].default  # type: ignore[attr-defined]  # a dataclass
        return np.full(len(self), default)


def column_of(records: Sequence[Any], name: str) -> Sequence[Any] | Column:
    """All values of a field, however the records are kept."""
    return records.column(name) if isinstance(records, Records) else [getattr(record, name) for record in records]
