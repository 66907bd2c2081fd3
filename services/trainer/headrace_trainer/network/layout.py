"""How the inputs of a model are laid out in the network: which column has which reserved rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace_core.definitions.models import CrossInput, IdInput, IdsInput, Input, NumberInput


@dataclass(frozen=True, slots=True)
class Bank:
    """Columns whose rows are in one variable.

    Attributes:
        columns: names of the single-valued columns.
        lists: names of the many-valued columns.
        shared: for each of both, the row for an id that has none of its own.
        missing: for each of both, the row for no id; 0, the padding, for lists.
        reserved: rows that belong to no id.
    """

    columns: tuple[str, ...]
    lists: tuple[str, ...]
    shared: tuple[int, ...]
    missing: tuple[int, ...]
    reserved: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The inputs, sorted by what the network does with them.

    Attributes:
        ids: ids and lists, which are embedded and have linear weights.
        crosses: crosses, which have linear weights only.
        numbers: numbers.
        lengths: of the lists.
    """

    ids: Bank
    crosses: Bank
    numbers: tuple[NumberInput, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, inputs: Sequence[Input]) -> "Layout":
        """Of a model."""
        lists = [i for i in inputs if isinstance(i, IdsInput)]
        return cls(
            _bank([i for i in inputs if isinstance(i, IdInput)], lists),
            _bank([i for i in inputs if isinstance(i, CrossInput)], []),
            tuple(i for i in inputs if isinstance(i, NumberInput)),
            tuple(i.length for i in lists),
        )


def _bank(columns: Sequence[IdInput | CrossInput], lists: Sequence[IdsInput]) -> Bank:
    tables = list(dict.fromkeys(i.table for i in (*columns, *lists)))
    shared = [1 + tables.index(i.table) for i in (*columns, *lists)]
    missing = [*range(1 + len(tables), 1 + len(tables) + len(columns)), *(0 for _ in lists)]
    return Bank(
        tuple(i.name for i in columns), tuple(i.name for i in lists), tuple(shared), tuple(missing),
        1 + len(tables) + len(columns),
    )  # fmt: skip
