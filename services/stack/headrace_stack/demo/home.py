"""The demo's home: every story starts from nothing, and nothing but a demo's data is removed for it."""

import os
from collections.abc import Mapping
from typing import Final

from headrace_stack.layout import Layout, StackError
from headrace_stack.stack import Stack

PROFILE: Final = "demo"
#: Settings that put data where a demo that starts from nothing does not look.
_ELSEWHERE: Final = tuple(
    f"HEADRACE_{name}" for name in ("KAFKA", "POSTGRES", "REDIS", "LAKE", "MODELS", "TRAIN_STATE", "MODEL_SERVER_STATE")
)


def start_from_nothing(stack: Stack, environment: Mapping[str, str] = os.environ) -> None:
    """End the stack and remove its data if they are a demo's; a home without data stays as it is.

    Raises:
        StackError: the data are another's, or lie where the demo can't remove them. Nothing was changed.
    """
    home = stack.layout
    if not home.has_data():
        return
    _refuse_others_data(home)
    if elsewhere := [name for name in _ELSEWHERE if environment.get(name)]:
        raise StackError(
            f"the story was told in {home.home} already, and can't start from nothing again where {', '.join(elsewhere)} "
            "says: unset it, or name an empty store and another HEADRACE_HOME"
        )
    stack.progress("the story starts from nothing: data of the one before are removed")
    stack.wipe()


def _refuse_others_data(home: Layout) -> None:
    others = home.profiles() - {PROFILE}
    if others or not home.profiles():
        whose = f"a stack with the profile {', '.join(sorted(others))}" if others else "nobody knows whom"
        raise StackError(
            f"{home.data} holds data of {whose}, and the demo starts from nothing: give it a home of its own, "
            "e.g. HEADRACE_HOME=.headrace/demo, or remove the folder yourself"
        )
