"""What a person needs in a day."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

ACTIVITY = {"low": 1.2, "moderate": 1.55, "high": 1.9}
FAT_SHARE, KCAL_PER_G_FAT, KCAL_PER_G = 0.30, 9, 4


class Person(BaseModel):
    sex: Literal["female", "male"]
    age: int = Field(ge=14, le=120)
    weight_kg: float = Field(gt=25, lt=400)
    height_cm: float = Field(gt=100, lt=250)
    activity: Literal["low", "moderate", "high"] = "moderate"
    diet: Literal["vegan", "vegetarian"] | None = None


def daily_need(person: Person) -> np.ndarray:
    """Energy (kcal), protein, fat and carbohydrate (g), by the Mifflin-St Jeor equation."""
    base = 10 * person.weight_kg + 6.25 * person.height_cm - 5 * person.age
    energy = (base + (5 if person.sex == "male" else -161)) * ACTIVITY[person.activity]
    protein = person.weight_kg * (1.6 if person.activity == "high" else 1.1)
    fat = energy * FAT_SHARE / KCAL_PER_G_FAT
    carbohydrate = (energy - protein * KCAL_PER_G - fat * KCAL_PER_G_FAT) / KCAL_PER_G
    return np.array([energy, protein, fat, carbohydrate])
