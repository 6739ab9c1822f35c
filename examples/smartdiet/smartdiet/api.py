"""The HTTP interface."""

from datetime import date

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, generate_latest
from pydantic import BaseModel

from .foods import all_foods
from .nutrition import Person
from .planner import DayPlan
from .settings import Settings
from .shopping import page
from .store import ask, days_of, open_store


class PlanRequest(BaseModel):
    person: Person
    start: date


def make_app(settings: Settings) -> FastAPI:
    app = FastAPI(title="smartdiet")
    store = open_store(settings.database_url)
    metrics = CollectorRegistry()
    asked = Counter("smartdiet_plans_asked", "Plans asked for.", registry=metrics)
    app.state.store = store

    def ready_days(plan_id: int) -> list[DayPlan]:
        days = days_of(store, plan_id)
        if days is None:
            raise HTTPException(404, f"no plan {plan_id}")
        return days

    @app.get("/health")
    def health() -> dict[str, int | str]:
        return {"status": "ok", "foods": len(all_foods())}

    @app.post("/plans", status_code=202)
    def create(request: PlanRequest) -> dict[str, int]:
        asked.inc()
        return {"id": ask(store, request.person, request.start)}

    @app.get("/plans/{plan_id}")
    def read(plan_id: int) -> list[DayPlan]:
        return ready_days(plan_id)

    @app.get("/plans/{plan_id}/shopping", response_class=HTMLResponse)
    def shopping(plan_id: int) -> str:
        days = ready_days(plan_id)
        if not days:
            raise HTTPException(409, f"plan {plan_id} is not ready")
        return page(days)

    @app.get("/metrics", response_class=PlainTextResponse)
    def show_metrics() -> str:
        return generate_latest(metrics).decode()

    return app
