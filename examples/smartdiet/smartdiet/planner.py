"""Turns a day's need into meals."""

from datetime import date

import numpy as np
from dateutil.rrule import DAILY, rrule
from pydantic import BaseModel

from .foods import NUTRIENTS, Food, foods_for
from .nutrition import Person, daily_need

STEPS = 400
MAX_GRAMS = 400.0


class Portion(BaseModel):
    food: str
    grams: int


class DayPlan(BaseModel):
    day: date
    portions: list[Portion]
    nutrients: dict[str, float]


def amounts(foods: tuple[Food, ...], need: np.ndarray) -> np.ndarray:
    """Grams of each food, never negative, whose nutrients come closest to the need.

    Least squares by projected gradient descent, each nutrient weighed by what is needed of it.
    """
    table = np.array([food.nutrients for food in foods]) / 100.0 / need
    grams = np.full(len(foods), 60.0)
    rate = 1.0 / np.linalg.norm(table @ table.T, 2)
    for _ in range(STEPS):
        grams -= rate * (table @ (grams @ table - 1.0))
        grams = np.clip(grams, 0.0, MAX_GRAMS)
    return grams


def plan_day(person: Person, day: date) -> DayPlan:
    """One day's plan. Neighbouring days differ: each leaves out other foods."""
    allowed = foods_for(person.diet)
    foods = tuple(food for i, food in enumerate(allowed) if (i + day.toordinal()) % 4)
    grams = np.round(amounts(foods, daily_need(person)) / 10) * 10
    eaten = grams @ np.array([food.nutrients for food in foods]) / 100.0
    return DayPlan(
        day=day,
        portions=[Portion(food=f.name, grams=int(g)) for f, g in zip(foods, grams, strict=True) if g],
        nutrients=dict(zip(NUTRIENTS, eaten.round(1).tolist(), strict=True)),
    )


def plan_week(person: Person, start: date) -> list[DayPlan]:
    return [plan_day(person, at.date()) for at in rrule(DAILY, dtstart=start, count=7)]
