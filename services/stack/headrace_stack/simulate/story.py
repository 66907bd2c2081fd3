"""The world of the demo: three ads, and a crowd whose taste moves.

1 history: everybody clicks 2002. 2 the crowd moves: everybody clicks 2001. 3 tastes split: Shanghai clicks 2002 again,
Beijing clicks 2011.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from headrace_stack.simulate.world import Person, Thing

LIKED: Final = 0.5
OTHERWISE: Final = 0.05
ADS: Final = ("2001", "2002", "2011")
PAGE: Final = "100"


class Chapter(IntEnum):
    """Which part of the story is told."""

    HISTORY = 1
    CROWD_MOVES = 2
    TASTES_SPLIT = 3


_LIKED: Final[Mapping[Chapter, Mapping[str, str]]] = {
    Chapter.HISTORY: {"Shanghai": "2002", "Beijing": "2002"},
    Chapter.CROWD_MOVES: {"Shanghai": "2001", "Beijing": "2001"},
    Chapter.TASTES_SPLIT: {"Shanghai": "2002", "Beijing": "2011"},
}

#: User 4 never comes by himself: he is asked for, and lives in Shanghai.
USER_4: Final = Person("4", "China", "male", "Shanghai")
NEWCOMER: Final = Person("newcomer", "China", "male", "Beijing")


@dataclass
class StoryWorld:
    """Chinese men on page 100, half of them in Shanghai, half in Beijing.

    Attributes:
        users: how many.
        chapter: moved on by whoever tells the story.
        fashion: liked ad by city, before the first chapter; None once it has begun.
    """

    users: int = 400
    chapter: Chapter = Chapter.HISTORY
    fashion: Mapping[str, str] | None = None
    page_id: str = PAGE
    people: list[Person] = field(init=False)
    things: list[Thing] = field(init=False)

    def __post_init__(self) -> None:
        """Everybody and everything."""
        cities = ("Shanghai", "Beijing")
        self.people = [Person(f"visitor-{n}", "China", "male", cities[n % 2]) for n in range(self.users)]
        self.things = [Thing(item, "ad", "ads") for item in ADS]

    def taste(self, person: Person, item_id: str, at_s: float) -> float:  # noqa: ARG002  # chapters are moved on by hand
        """Half of the looks at the liked ad are clicks, one in twenty at the others."""
        liked = self.fashion or _LIKED[self.chapter]
        return LIKED if liked[person.city] == item_id else OTHERWISE
