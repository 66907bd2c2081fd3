"""Who there is, and how likely each clicks on what. Pure: time and chance are passed in."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

_DAY_S: Final = 86_400.0
#: Chance that a user looks at a position at all: 1 / (position + 1) ** this.
_POSITION_BIAS: Final = 0.35


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the catalog.

    Attributes:
        user_id: his id.
        country, gender, city: his attributes.
    """

    user_id: str
    country: str
    gender: str
    city: str


@dataclass(frozen=True, slots=True)
class Thing:
    """An item of the catalog."""

    item_id: str
    item_type: str
    category: str


class World(Protocol):
    """What a simulation plays."""

    @property
    def people(self) -> Sequence[Person]:
        """Everybody."""

    @property
    def things(self) -> Sequence[Thing]:
        """Everything."""

    @property
    def page_id(self) -> str:
        """Page on which it happens."""

    def taste(self, person: Person, item_id: str, at_s: float) -> float:
        """Probability that a person who looks at an item clicks on it, `at_s` seconds into the simulation."""


def looked_at(position: int) -> float:
    """Probability that a position of the list is looked at."""
    return float((position + 1) ** -_POSITION_BIAS)


def clicks_expected(world: World, person: Person, items: Sequence[str], at_s: float) -> float:
    """Expected clicks on a list."""
    return sum(looked_at(n) * world.taste(person, item, at_s) for n, item in enumerate(items))


def best_list(world: World, person: Person, count: int, at_s: float) -> list[str]:
    """What an oracle would show."""
    ranked = sorted(world.things, key=lambda t: -world.taste(person, t.item_id, at_s))
    return [t.item_id for t in ranked[:count]]


@dataclass
class LatentWorld:
    """Tastes by latent factors, with drift: p = sigmoid(bias + popularity(item, t) + person · item).

    An item's popularity swings with a period of its own around its mean, so what is popular changes within minutes.

    Attributes:
        users, items: how many.
        seed: makes it the same world again.
    """

    users: int = 1_000
    items: int = 200
    seed: int = 1
    page_id: str = "home"
    people: list[Person] = field(init=False)
    things: list[Thing] = field(init=False)

    def __post_init__(self) -> None:
        """Draw everybody and everything."""
        rng = random.Random(self.seed)  # noqa: S311  # a seeded world
        factors = np.random.default_rng(self.seed)
        cities = {"China": ("Shanghai", "Beijing", "Chengdu"), "Japan": ("Tokyo", "Osaka"), "France": ("Paris", "Lyon")}
        self.people = []
        for n in range(self.users):
            country = rng.choice(sorted(cities))
            gender = rng.choice(("male", "female"))
            self.people.append(Person(f"user-{n}", country, gender, rng.choice(cities[country])))
        kinds = ("goods", "article", "video", "ad")
        self.things = [
            Thing(f"item-{n}", kinds[n % len(kinds)], f"category-{rng.randrange(20)}") for n in range(self.items)
        ]
        self._index = {t.item_id: n for n, t in enumerate(self.things)}
        of_city = {c: factors.normal(size=8) for names in cities.values() for c in names}
        of_gender = {g: factors.normal(size=8) for g in ("female", "male")}
        own = factors.normal(size=(self.users, 8))
        self._tastes = {
            p.user_id: (0.6 * own[n] + 0.5 * of_city[p.city] + 0.4 * of_gender[p.gender]) / math.sqrt(8)
            for n, p in enumerate(self.people)
        }
        self._factors = factors.normal(size=(self.items, 8))
        self._popularity = factors.normal(scale=0.7, size=self.items)
        self._period_s = factors.uniform(600, 7_200, size=self.items)
        self._phase = factors.uniform(0, 2 * math.pi, size=self.items)

    def taste(self, person: Person, item_id: str, at_s: float) -> float:
        """As the class says."""
        n = self._index.get(item_id)
        if n is None:
            return 0.0
        season = 0.4 * math.sin(2 * math.pi * at_s / _DAY_S)
        swing = math.sin(2 * math.pi * at_s / self._period_s[n] + self._phase[n])
        affinity = float(self._tastes[person.user_id] @ self._factors[n])
        return 1.0 / (1.0 + math.exp(2.5 - season - self._popularity[n] - 0.8 * swing - 1.2 * affinity))

    def tastes(
        self, people: NDArray[np.int64], items: NDArray[np.int64], at_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """`taste` of many: of people[i] (their places in `people`) for each of items[i, :], at_s[i] seconds into the simulation."""
        of_people = np.stack([self._tastes[p.user_id] for p in self.people])
        season = 0.4 * np.sin(2 * math.pi * at_s / _DAY_S)
        swing = np.sin(2 * math.pi * at_s[:, None] / self._period_s[items] + self._phase[items])
        affinity = np.einsum("if,ijf->ij", of_people[people], self._factors[items])
        logit = season[:, None] + self._popularity[items] + 0.8 * swing + 1.2 * affinity - 2.5
        likely: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logit))
        return likely
