"""What the sink reads from the environment and `.env`."""

from plumbing.settings import (
    AppSettings,
    KafkaSettings,
    MetricsSettings,
    PostgresSettings,
    RehearsalSettings,
    setting,
)


class SinkSettings(
    AppSettings, KafkaSettings, PostgresSettings, MetricsSettings, RehearsalSettings
):
    session_timeout_ms: int = setting(
        6_000,
        "After how long without a sign of life a sink's partitions go to others.",
        ge=1_000,
        le=300_000,
    )
