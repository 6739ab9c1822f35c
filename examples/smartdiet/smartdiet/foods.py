"""The table of foods."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import yaml

NUTRIENTS = ("energy", "protein", "fat", "carbohydrate")


@dataclass(frozen=True)
class Food:
    name: str
    kind: str
    energy: float
    protein: float
    fat: float
    carbohydrate: float
    diets: tuple[str, ...]

    @property
    def nutrients(self) -> np.ndarray:
        """What 100 g hold, in the order of NUTRIENTS."""
        return np.array([getattr(self, name) for name in NUTRIENTS])


@cache
def all_foods() -> tuple[Food, ...]:
    text = files("smartdiet").joinpath("data/foods.yaml").read_text()
    return tuple(Food(**{**row, "diets": tuple(row["diets"])}) for row in yaml.safe_load(text))


def foods_for(diet: str | None) -> tuple[Food, ...]:
    """The foods that a diet allows; all of them where it is None."""
    return tuple(food for food in all_foods() if diet is None or diet in food.diets)
