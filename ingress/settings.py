"""The settings of the ingress, from the environment and `.env`."""

from pydantic import SecretStr

from ingress.http import client_address
from plumbing.settings import (
    AppSettings,
    KafkaSettings,
    PostgresSettings,
    RehearsalSettings,
    setting,
    weak_password,
    weak_secret,
)


class IngressSettings(AppSettings, KafkaSettings, PostgresSettings, RehearsalSettings):
    http_host: str = setting("127.0.0.1", "The address on which the ingress listens.")
    http_port: int = setting(8000, "The HTTP port.", ge=1, le=65535)
    api_v1_prefix: str = setting(
        "/api/v1",
        "The path prefix of the first version of the API.",
        allowed="/ and A-Z a-z 0-9 _ -, not ending in /",
        pattern=r"^(/[A-Za-z0-9_-]+)+$",
    )
    signing_key: SecretStr | None = setting(
        None,
        "Signs access tokens, CSRF tokens and status URLs. All ingresses of a ledger share it.",
        allowed="a random text of 32 bytes or more",
        default_text="unset: the embedded runtime creates one at its first start",
        strong_in_production=True,
    )
    signing_key_previous: SecretStr | None = setting(
        None,
        "The previous SIGNING_KEY: what it signed stays valid.",
        allowed="a random text of 32 bytes or more",
        secret=True,
    )
    access_token_ttl_s: int = setting(
        900, "How long an access token is valid, in seconds.", ge=10, le=86_400
    )
    session_ttl_s: int = setting(
        30 * 86_400,
        "How long a session lasts after its last refresh, in seconds.",
        ge=60,
        le=366 * 86_400,
    )
    cookie_ttl_s: int = setting(
        43_200,
        "How long a browser's session cookie is valid, in seconds.",
        ge=60,
        le=366 * 86_400,
    )
    password_concurrency: int = setting(
        2, "How many passwords are hashed at once. Others wait.", ge=1, le=64
    )
    password_memory_kib: int = setting(
        19_456, "The memory for hashing one password, in KiB.", ge=8_192, le=1_048_576
    )
    login_failures_per_email: int = setting(
        10,
        "How many wrong passwords for one e-mail address are accepted within LOGIN_WINDOW_S.",
        ge=1,
        le=1_000,
    )
    login_failures_per_address: int = setting(
        100,
        "How many wrong passwords from one network address are accepted within LOGIN_WINDOW_S."
        " Behind a proxy that is the proxy's address, unless TRUSTED_PROXIES names it.",
        ge=1,
        le=1_000_000,
    )
    login_window_s: int = setting(
        900,
        "How long a wrong password counts, in seconds. At the limit, one more attempt is accepted"
        " each time its share of the window has passed.",
        ge=1,
        le=86_400,
    )
    registrations_per_address: int = setting(
        100,
        "How many registrations from one network address are accepted within LOGIN_WINDOW_S.",
        ge=1,
        le=1_000_000,
    )
    waits_per_user: int = setting(
        100,
        "How many commands and long polls of one user are in progress at once, at each ingress."
        " One more is refused before anything is written.",
        ge=1,
        le=100_000,
    )
    sessions_per_user: int = setting(
        50,
        "How many sessions a user may have. One more ends the oldest.",
        ge=1,
        le=100,
    )
    api_keys_per_user: int = setting(
        50,
        "How many API keys a user may have. One more ends the oldest.",
        ge=1,
        le=100,
    )
    api_key_ttl_s: int = setting(
        90 * 86_400,
        "How long an API key without `expires_at` is valid, in seconds.",
        ge=60,
        le=3_660 * 86_400,
    )
    api_key_max_ttl_s: int = setting(
        366 * 86_400,
        "The longest validity of an API key, in seconds.",
        ge=60,
        le=3_660 * 86_400,
    )
    trusted_proxies: str = setting(
        "",
        "The proxies whose X-Forwarded-For is trusted.",
        allowed="IP addresses or networks, separated by commas",
    )
    admin_email: str | None = setting(
        None,
        "The e-mail address of the first admin, created at the start if there is no admin.",
        allowed="an e-mail address",
        pattern=r"^[^\s@]+@[^\s@]+$",
    )
    admin_password: SecretStr | None = setting(
        None,
        "The password of the first admin.",
        allowed="8 to 128 characters, in production 12 or more",
        secret=True,
    )
    require_trans_id: bool = setting(
        False, "Whether requests that move money must have an idempotency key."
    )
    registration_open: bool = setting(
        True, "Whether anybody may register. If false, no new users can."
    )
    self_credit: bool = setting(
        lambda values: values.get("app_env") != "production",
        "Whether users may credit their own wallets, which creates money. If false, only operators"
        " may.",
        default_text="true in development, false in production",
    )

    def refusals(self) -> list[str]:
        refusals = super().refusals()
        try:
            client_address.parse_networks(self.trusted_proxies)
        except ValueError as error:
            refusals.append(f"TRUSTED_PROXIES: {error}")
        if self.access_token_ttl_s > self.session_ttl_s:
            refusals.append("ACCESS_TOKEN_TTL_S: longer than SESSION_TTL_S")
        if self.api_key_ttl_s > self.api_key_max_ttl_s:
            refusals.append("API_KEY_TTL_S: longer than API_KEY_MAX_TTL_S")
        if self.production:
            refusals += self._weak_secrets()
        return refusals

    def _weak_secrets(self) -> list[str]:
        """Of those that may be unset."""
        refusals = []
        if self.signing_key_previous is not None:
            key = self.signing_key_previous.get_secret_value()
            refusals += weak_secret("SIGNING_KEY_PREVIOUS", key)
        if self.admin_password is not None:
            refusals += weak_password("ADMIN_PASSWORD", self.admin_password.get_secret_value())
        return refusals
