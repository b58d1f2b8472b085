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
    signing_key_previous: SecretStr | None = setting(
        None,
        "The SIGNING_KEY before this one: what it signed is still believed.",
        allowed="a random text of 32 bytes or more",
        secret=True,
    )
    access_token_ttl_s: int = setting(
        900, "How long an access token is taken, in seconds.", ge=10, le=86_400
    )
    session_ttl_s: int = setting(
        30 * 86_400,
        "How long a session lasts after its last refresh, in seconds.",
        ge=60,
        le=366 * 86_400,
    )
    cookie_ttl_s: int = setting(
        43_200,
        "How long a browser is signed in by its cookie, in seconds.",
        ge=60,
        le=366 * 86_400,
    )
    password_concurrency: int = setting(
        2, "How many passwords are hashed at once; others wait.", ge=1, le=64
    )
    password_memory_kib: int = setting(
        19_456, "The memory that one hash of a password takes, in KiB.", ge=8_192, le=1_048_576
    )
    admin_email: str | None = setting(
        None,
        "The e-mail address of the first admin, who is made at the start where there is none.",
        allowed="an e-mail address",
        pattern=r"^[^\s@]+@[^\s@]+$",
    )
    admin_password: SecretStr | None = setting(
        None, "The password of that admin.", allowed="8 to 128 characters", secret=True
    )
    require_trans_id: bool = setting(
        False, "Whether what moves money is refused without an idempotency key of the client's."
    )
    self_credit: bool = setting(
        True,
        "Whether users may credit their own wallets. Off, operators alone bring money in.",
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
