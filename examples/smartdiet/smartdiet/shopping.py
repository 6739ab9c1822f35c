"""The shopping list of a plan."""

from collections import Counter

from jinja2 import Environment, PackageLoader, select_autoescape

from .planner import DayPlan

_templates = Environment(loader=PackageLoader("smartdiet"), autoescape=select_autoescape())


def totals(days: list[DayPlan]) -> dict[str, int]:
    """Grams of each food, the heaviest first."""
    grams: Counter[str] = Counter()
    for day in days:
        grams.update({portion.food: portion.grams for portion in day.portions})
    return dict(grams.most_common())


def page(days: list[DayPlan]) -> str:
    return _templates.get_template("shopping.html").render(days=days, totals=totals(days))
