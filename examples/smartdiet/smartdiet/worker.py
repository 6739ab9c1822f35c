"""Makes the plans that the API was asked for."""

import time

import structlog
from sqlalchemy.exc import OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from .settings import Settings
from .store import open_store, work_once

log = structlog.get_logger()
patiently = retry(
    retry=retry_if_exception_type(OperationalError),
    wait=wait_exponential(max=10),
    stop=stop_after_attempt(5),
    reraise=True,
)


def run(settings: Settings, once: bool = False) -> None:
    engine = patiently(open_store)(settings.database_url)
    while True:
        made = patiently(work_once)(engine)
        if made:
            log.info("plans made", count=made)
        if once:
            return
        time.sleep(settings.poll_seconds)
