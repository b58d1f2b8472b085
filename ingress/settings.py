"""What the ingress reads from the environment and `.env`."""

from pydantic import SecretStr

from plumbing.settings import AppSettings, KafkaSettings, PostgresSettings, setting


class IngressSettings(AppSettings, KafkaSettings, PostgresSettings):
    http_host: str = setting("127.0.0.1", "The address that the HTTP port is opened on.")
    http_port: int = setting(8000, "The HTTP port.", ge=1, le=65535)
    api_v1_prefix: str = setting(
        "/api/v1",
        "The path that the first version of the API stands under.",
        allowed="/ and A-Z a-z 0-9 _ -, not ending in /",
        pattern=r"^(/[A-Za-z0-9_-]+)+$",
    )
    signing_key: SecretStr | None = setting(
        None,
        "Signs what clients carry and bring back: sessions and the addresses to poll at. All"
        " ingresses of one ledger share it.",
        allowed="a random text of 32 bytes or more",
        default_text="unset: the embedded runtime makes one at its first start",
        strong_in_production=True,
    )
