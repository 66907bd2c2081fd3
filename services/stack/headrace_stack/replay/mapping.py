"""Which column of a person's log means what: `--map user_id=customer,item_id=sku,click=clicked,time=ts`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from headrace_stack.commands.terminal import WrongUsageError

REQUIRED: Final = ("user_id", "item_id", "click", "time")
OPTIONAL: Final = ("request_id", "position", "propensity", "candidates", "page_id", "click_time")
#: With what follows the point: `user.country`, `item.category`, `context.device`.
FAMILIES: Final = ("user", "item", "context")


@dataclass(frozen=True, slots=True)
class Mapping:
    """Columns by meaning.

    Attributes:
        plain: column of each of REQUIRED and OPTIONAL that is told.
        attributes: (family, name, column) of the others.
    """

    plain: dict[str, str]
    attributes: Sequence[tuple[str, str, str]] = field(default_factory=tuple)

    @classmethod
    def of(cls, text: str, columns: Sequence[str]) -> Self:
        """Read the option. A meaning that is not told is the column of that name, if there is one; `MEANING=` leaves it out.

        Raises:
            WrongUsageError: it is not understood, or names a column that is not there.
        """
        told: dict[str, str] = {}
        plain: dict[str, str] = {}
        attributes: list[tuple[str, str, str]] = []
        for pair in filter(None, (part.strip() for part in text.split(","))):
            meaning, equals, column = pair.partition("=")
            family, point, name = meaning.partition(".")
            if not equals or (meaning not in REQUIRED + OPTIONAL and not (point and name and family in FAMILIES)):
                raise WrongUsageError(
                    f"--map {pair}: want MEANING=COLUMN, MEANING being one of {', '.join(REQUIRED + OPTIONAL)}, "
                    "user.NAME, item.NAME, context.NAME"
                )
            told[meaning] = column
        for column in columns:
            family, point, name = column.partition(".")
            if column in REQUIRED + OPTIONAL or (point and name and family in FAMILIES):
                told.setdefault(column, column)
        told |= {meaning: meaning for meaning in REQUIRED if not told.get(meaning)}  # missed below, by this name
        for meaning, column in told.items():
            family, point, name = meaning.partition(".")
            if column and point:
                attributes.append((family, name, column))
            elif column:
                plain[meaning] = column
        named = [*plain.items(), *((f"{family}.{name}", column) for family, name, column in attributes)]
        if missing := [f"{meaning}={column}" for meaning, column in named if column not in columns]:
            raise WrongUsageError(f"--map {','.join(missing)}: the file's columns are {', '.join(columns)}")
        return cls(plain, attributes)
