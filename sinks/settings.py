"""What the sink reads from the environment and `.env`."""

from plumbing.settings import AppSettings, KafkaSettings, MetricsSettings, PostgresSettings


class SinkSettings(AppSettings, KafkaSettings, PostgresSettings, MetricsSettings):
    pass
