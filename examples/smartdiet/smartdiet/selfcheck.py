"""Asks the API for a plan in this process, makes it, and reads it back."""

import asyncio

import httpx

from .api import make_app
from .foods import NUTRIENTS
from .nutrition import Person, daily_need
from .settings import Settings
from .store import work_once


async def _check() -> str:
    app = make_app(Settings(database_url="sqlite://"))
    person = Person(sex="female", age=34, weight_kg=62, height_cm=169, diet="vegetarian")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://smartdiet") as client:
        health = (await client.get("/health")).raise_for_status().json()
        body = {"person": person.model_dump(), "start": "2026-01-05"}
        plan = (await client.post("/plans", json=body)).raise_for_status().json()["id"]
        if (await client.get(f"/plans/{plan}")).raise_for_status().json():
            raise AssertionError("the plan was ready before the worker ran")
        work_once(app.state.store)
        days = (await client.get(f"/plans/{plan}")).raise_for_status().json()
        page = (await client.get(f"/plans/{plan}/shopping")).raise_for_status().text
    energy = sum(day["nutrients"]["energy"] for day in days) / len(days)
    need = daily_need(person)[NUTRIENTS.index("energy")]
    if len(days) != 7 or abs(energy / need - 1) > 0.1 or "<li>" not in page:
        raise AssertionError(f"a bad plan: {len(days)} days of {energy:.0f} kcal, needed {need:.0f}")
    return f"smartdiet: ok, {health['foods']} foods, {len(days)} days of {energy:.0f} kcal"


def run() -> str:
    return asyncio.run(_check())
