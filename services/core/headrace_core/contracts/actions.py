"""Names of actions in JSON and definitions, and the label bit that each sets."""

from enum import IntFlag
from typing import Final

from headrace_core._generated.headrace.events.v1.events_pb2 import Action


class Label(IntFlag):
    """Bits of a sample's label mask; no bit set is a negative."""

    CLICK = 1
    FAVORITE = 2
    CART = 4
    CONSULT = 8
    COMMENT = 16
    PURCHASE = 32


#: Action by its name in JSON, e.g. "click" -> Action.ACTION_CLICK.
ACTION_BY_NAME: Final[dict[str, int]] = {
    name.removeprefix("ACTION_").lower(): number for name, number in Action.items() if number
}

#: The inverse of ACTION_BY_NAME.
NAME_OF_ACTION: Final[dict[int, str]] = {number: name for name, number in ACTION_BY_NAME.items()}

#: Label bit by action; actions without a bit (impression, view, search) label nothing.
LABEL_OF_ACTION: Final[dict[int, Label]] = {
    ACTION_BY_NAME[label.name.lower()]: label for label in Label if label.name is not None
}
