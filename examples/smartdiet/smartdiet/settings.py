"""Settings, read from SMARTDIET_* variables."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SMARTDIET_")

    database_url: str = "sqlite:///smartdiet.db"
    poll_seconds: float = 1.0
    meals_per_day: int = 3
