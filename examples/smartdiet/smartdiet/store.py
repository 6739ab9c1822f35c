"""Plans that were asked for, and those that are ready."""

from datetime import date

import orjson
from sqlalchemy import create_engine, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from .nutrition import Person
from .planner import DayPlan, plan_week


class Base(DeclarativeBase):
    pass


class Plan(Base):
    __tablename__ = "plans"

    id: Mapped[int] = mapped_column(primary_key=True)
    person: Mapped[bytes]
    start: Mapped[date]
    days: Mapped[bytes | None] = mapped_column(default=None)


def open_store(url: str) -> Engine:
    memory = url == "sqlite://"
    options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}} if memory else {}
    engine = create_engine(url, **options)
    Base.metadata.create_all(engine)
    return engine


def ask(engine: Engine, person: Person, start: date) -> int:
    with Session(engine) as session:
        plan = Plan(person=orjson.dumps(person.model_dump()), start=start)
        session.add(plan)
        session.commit()
        return plan.id


def days_of(engine: Engine, plan_id: int) -> list[DayPlan] | None:
    """The plan's days; empty while it waits for the worker, None where there is no such plan."""
    with Session(engine) as session:
        plan = session.get(Plan, plan_id)
        if plan is None:
            return None
        return [DayPlan.model_validate(day) for day in orjson.loads(plan.days or b"[]")]


def work_once(engine: Engine) -> int:
    """Makes every plan that waits; says how many."""
    with Session(engine) as session:
        waiting = session.scalars(select(Plan).where(Plan.days.is_(None))).all()
        for plan in waiting:
            days = plan_week(Person.model_validate(orjson.loads(plan.person)), plan.start)
            plan.days = orjson.dumps([day.model_dump(mode="json") for day in days])
        session.commit()
        return len(waiting)
