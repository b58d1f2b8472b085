"""What the sink reads from the environment and `.env`."""

from plumbing.settings import (
    AppSettings,
    KafkaSettings,
    MetricsSettings,
    PostgresSettings,
    setting,
)


class SinkSettings(AppSettings, KafkaSettings, PostgresSettings, MetricsSettings):
    session_timeout_ms: int = setting(
        6_000,
        "After how long without a sign of life a sink's partitions go to others.",
        ge=1_000,
        le=300_000,
    )
    crash_at: str = setting(
        "",
        "For rehearsals: the named step at which the process kills itself.",
        allowed="a step of docs/failure-scenarios.md, or *",
        development_only=True,
    )
    crash_chance: float = setting(
        1.0,
        "For rehearsals: the chance of it, each time the step is reached.",
        allowed="a number from 0 to 1",
        ge=0,
        le=1,
    )
