from datetime import date

from smartdiet.foods import all_foods
from smartdiet.nutrition import Person
from smartdiet.planner import plan_week


def test_a_vegan_week_holds_vegan_food_only():
    person = Person(sex="male", age=40, weight_kg=80, height_cm=180, diet="vegan")
    vegan = {food.name for food in all_foods() if "vegan" in food.diets}
    for day in plan_week(person, date(2026, 1, 5)):
        assert {portion.food for portion in day.portions} <= vegan
