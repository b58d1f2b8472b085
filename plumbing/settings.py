"""Settings: one frozen value per service, read once, from the environment and `.env`.

Keeps the rule that a wrong setting stops a service before it touches anything: every unknown key
of `.env` and every bad value is named, with what is allowed, and none is guessed. It must not know
which service reads what; the groups here are those that several services share.
"""

import difflib
import io
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from dotenv import parser
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from plumbing import setting_names
from plumbing.failures import Failure
from schemas import money, topics

MIN_SECRET_LENGTH = 32
MIN_SECRET_DISTINCT = 10
PLACEHOLDERS = ("change", "default", "dev", "example", "insecure", "secret", "test")
MIN_PASSWORD_LENGTH = 12
MIN_PASSWORD_DISTINCT = 6
GUESSED_FIRST = (*PLACEHOLDERS, "12345", "admin", "letmein", "passw", "qwerty", "welcome")
SHORT_BROKER_TXN_TIMEOUT_MS = 15_000
PASSWORD_SETTINGS = ("kafka_sasl_username", "kafka_sasl_password")
BEARER_SETTINGS = ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
BEARER_OPTIONS = ("kafka_oauth_scope", "kafka_oauth_ca_location")
TLS_SETTINGS = (
    "kafka_ssl_ca_location",
    "kafka_ssl_certificate_location",
    "kafka_ssl_key_location",
    "kafka_ssl_key_password",
)


class SettingsError(Failure):
    exit_code = 2


def setting(
    default: Any,
    description: str,
    *,
    allowed: str = "",
    default_text: str = "",
    secret: bool = False,
    strong_in_production: bool = False,
    development_only: bool = False,
    **constraints: Any,
) -> Any:
    """A field whose metadata is enough to explain it: in an error, and in docs/reference."""
    about: JsonDict = {
        "allowed": allowed,
        "default_text": default_text,
        "secret": secret or strong_in_production,
        "strong_in_production": strong_in_production,
        "development_only": development_only,
    }
    if callable(default):
        constraints["default_factory"] = default
    else:
        constraints["default"] = default
    is_public = not about["secret"]
    return Field(description=description, repr=is_public, json_schema_extra=about, **constraints)


class ServiceSettings(BaseSettings):
    """The base of every service's settings. Attributes are the names in lower case."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        case_sensitive=True,
        env_file_encoding="utf-8",
        alias_generator=str.upper,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def read(cls, env_file: Path = Path(".env")) -> Self:
        problems = list(_unknown_keys(env_file))
        try:
            settings = cls(_env_file=env_file)  # type: ignore[call-arg]  # of BaseSettings itself
        except ValidationError as error:
            # A default that follows another value is not made when any value is wrong.
            wrong = (e for e in error.errors() if e["type"] != "default_factory_not_called")
            problems += [_bad_value(cls, each) for each in wrong]
            raise SettingsError(*problems) from None
        problems += settings.refusals()
        if problems:
            raise SettingsError(*problems)
        return settings

    def refusals(self) -> list[str]:
        """What is wrong with values that are each allowed but do not go together."""
        return []


class AppSettings(ServiceSettings):
    app_name: str = setting(
        "streamledger",
        "The name that this installation goes by, in logs and answers.",
        allowed="1 to 64 of A-Z a-z 0-9 . _ -",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
    ledger_id: str = setting(
        lambda values: values.get("app_name", ""),
        "The ledger's identity: part of transactional ids, group and client ids, and written in the"
        " first record of each partition. A ledger never changes it.",
        allowed="1 to 64 of A-Z a-z 0-9 . _ -",
        default_text="the value of APP_NAME",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
    app_env: Literal["development", "production"] = setting(
        "development",
        "Production refuses to start with development secrets, demo data or rehearsal settings.",
    )
    default_currency: str = setting(
        "NGN",
        "The currency of an account where none is given.",
        allowed="an ISO 4217 code of three capital letters",
        pattern=r"^[A-Z]{3}$",
    )
    demo_data: bool = setting(
        False,
        "Whether `streamledger up` makes the people of the walk-through, with money.",
        default_text="false; true where `streamledger up` runs its own Kafka and Postgres",
        development_only=True,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", "The least severe log line that is written."
    )
    log_format: Literal["json", "console"] = setting(
        lambda values: "json" if values.get("app_env") == "production" else "console",
        "One JSON object per line, or lines for people.",
        default_text="json in production, console in development",
    )

    @property
    def production(self) -> bool:
        return self.app_env == "production"

    def refusals(self) -> list[str]:
        refused = super().refusals()
        if self.default_currency not in money.EXPONENTS:
            refused.append(
                f"DEFAULT_CURRENCY={self.default_currency}: no such currency; allowed is an"
                " ISO 4217 code of three capital letters"
            )
        if not self.production:
            return refused
        for name, field in type(self).model_fields.items():
            about = metadata(field)
            value = getattr(self, name)
            if about["development_only"] and value != field.default:
                refused.append(f"{name.upper()}: only its default is allowed in production")
            if about["strong_in_production"]:
                secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
                refused += weak_secret(name.upper(), secret)
        return refused


class KafkaSettings(ServiceSettings):
    kafka_brokers: str | None = setting(
        None,
        "The Kafka cluster, as host:port pairs with commas between them.",
        allowed="host:port, or several with commas between them",
        default_text="unset: the embedded broker of `streamledger up`",
        pattern=r"^[^\s,:]+:\d{1,5}(,[^\s,:]+:\d{1,5})*$",
    )
    kafka_topic: str = setting(
        topics.TRANSACTIONS.role,
        "The name of the topic of posted transactions, for its readers (before the prefix).",
        allowed="1 to 100 of A-Z a-z 0-9 . _ -, and not the name of another topic",
        pattern=topics.NAME_PATTERN,
    )
    topic_prefix: str = setting(
        "",
        "Put before the name of every topic and every transactional, group and client id.",
        allowed="up to 100 of A-Z a-z 0-9 . _ -",
        default_text="empty",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
    )
    partitions: int = setting(
        2,
        "How many partitions the ledger's topics have. Fixed when the topics are created.",
        ge=1,
        le=1024,
    )
    replication_factor: int | None = setting(
        None,
        "How many brokers hold each topic. Each write waits for a majority of them.",
        default_text="unset: 3, or as many brokers as there are",
        ge=1,
        le=9,
    )
    allow_broker_txn_timeout_ms: int | None = setting(
        None,
        "Accepts brokers whose transaction.max.timeout.ms is above 15000, up to this value. The"
        " longer it is, the longer another producer's open transaction can hold a partition up.",
        default_text="unset: 15000 at most",
        ge=SHORT_BROKER_TXN_TIMEOUT_MS,
        le=86_400_000,
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = setting(
        "PLAINTEXT", "How clients connect to the brokers."
    )
    kafka_sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None
    ) = setting(None, "How clients authenticate; needed with SASL_PLAINTEXT and SASL_SSL.")
    kafka_sasl_username: str | None = setting(
        None, "The user name for SASL, but for OAUTHBEARER.", min_length=1
    )
    kafka_sasl_password: SecretStr | None = setting(
        None, "The password for SASL, but for OAUTHBEARER.", secret=True
    )
    kafka_oauth_token_url: str | None = setting(
        None,
        "Where OAUTHBEARER gets its tokens: the token endpoint of an OpenID Connect provider, asked"
        " with the grant client_credentials.",
        allowed="http:// or https://, and a host",
        pattern=r"^https?://[^/?#@]+(/.*)?$",
    )
    kafka_oauth_client_id: str | None = setting(
        None, "The client id for KAFKA_OAUTH_TOKEN_URL.", min_length=1
    )
    kafka_oauth_client_secret: SecretStr | None = setting(
        None, "The client secret for KAFKA_OAUTH_TOKEN_URL.", secret=True
    )
    kafka_oauth_scope: str | None = setting(
        None, "The scope that a token is asked for.", default_text="unset: none is named"
    )
    kafka_oauth_ca_location: Path | None = setting(
        None,
        "A file of certificates (PEM) that sign that of KAFKA_OAUTH_TOKEN_URL.",
        allowed="the path of a file that can be read",
        default_text="unset: the system's certificates",
    )
    kafka_ssl_ca_location: Path | None = setting(
        None,
        "A file of certificates (PEM) that sign the brokers' own.",
        allowed="the path of a file that can be read",
        default_text="unset: the system's certificates",
    )
    kafka_ssl_certificate_location: Path | None = setting(
        None,
        "A file with the certificate (PEM) that clients show to brokers that ask for one.",
        allowed="the path of a file that can be read",
        default_text="unset: none is shown",
    )
    kafka_ssl_key_location: Path | None = setting(
        None,
        "A file with the private key (PEM) of KAFKA_SSL_CERTIFICATE_LOCATION.",
        allowed="the path of a file that can be read",
    )
    kafka_ssl_key_password: SecretStr | None = setting(
        None,
        "The password of the key in KAFKA_SSL_KEY_LOCATION.",
        default_text="unset: it has none",
        secret=True,
    )

    @property
    def topics(self) -> topics.Names:
        return topics.Names(self.topic_prefix, self.kafka_topic)

    @property
    def brokers(self) -> str:
        if self.kafka_brokers is None:
            raise SettingsError(
                "KAFKA_BROKERS: not set; start everything with `streamledger up`, or name the"
                " brokers (host:port, or several with commas between them)"
            )
        return self.kafka_brokers

    def refusals(self) -> list[str]:
        refused = [*super().refusals(), *self._security_refusals()]
        taken = {topic.role for topic in topics.ALL} - {topics.TRANSACTIONS.role}
        if self.kafka_topic in taken:
            refused.append(f"KAFKA_TOPIC={self.kafka_topic}: that is the name of another topic")
        return refused

    def _security_refusals(self) -> Iterator[str]:
        sasl = self.kafka_security_protocol.startswith("SASL_")
        tls = self.kafka_security_protocol.endswith("SSL")
        protocol = f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol}"
        yield from self._wanted(("kafka_sasl_mechanism",), sasl, protocol)
        bearer = self.kafka_sasl_mechanism == "OAUTHBEARER"
        mechanism = self.kafka_sasl_mechanism if sasl else None
        with_what = f"KAFKA_SASL_MECHANISM={mechanism}" if mechanism is not None else protocol
        yield from self._wanted(PASSWORD_SETTINGS, sasl and not bearer, with_what)
        yield from self._wanted(BEARER_SETTINGS, bearer, with_what)
        if not bearer:
            yield from self._wanted(BEARER_OPTIONS, False, with_what)
        if not tls:
            yield from self._wanted(TLS_SETTINGS, False, protocol)
        elif (self.kafka_ssl_certificate_location is None) != (self.kafka_ssl_key_location is None):
            yield "KAFKA_SSL_CERTIFICATE_LOCATION, KAFKA_SSL_KEY_LOCATION: both or neither"
        for name in (*TLS_SETTINGS * tls, *BEARER_OPTIONS * bearer):
            value = getattr(self, name)
            if isinstance(value, Path) and not value.is_file():
                yield f"{name.upper()}={value}: no such file"

    def _wanted(self, names: tuple[str, ...], wanted: bool, with_what: str) -> Iterator[str]:
        for name in names:
            if (getattr(self, name) is not None) != wanted:
                need = "needed" if wanted else "not allowed"
                yield f"{name.upper()}: {need} with {with_what}"


def _postgres_url(value: object) -> object:
    if isinstance(value, str) and not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("scheme")
    return value


class PostgresSettings(ServiceSettings):
    database_url: Annotated[str | None, BeforeValidator(_postgres_url)] = setting(
        None,
        "The Postgres database, as postgresql://user:password@host:port/name.",
        allowed="postgresql://user:password@host:port/name",
        default_text="unset: the embedded Postgres of `streamledger up`",
        secret=True,
    )
    database_pool_size: int = setting(
        10,
        "How many Postgres connections one process may hold. An ingress holds two more: one"
        " that listens for revocations, one for `/ready`.",
        ge=1,
        le=1000,
    )

    @property
    def database(self) -> str:
        if self.database_url is None:
            raise SettingsError(
                "DATABASE_URL: not set; start everything with `streamledger up`, or name the"
                " database (postgresql://user:password@host:port/name)"
            )
        return self.database_url


class RehearsalSettings(ServiceSettings):
    crash_at: str = setting(
        "",
        "For rehearsals: the named step at which the process kills itself; with `freeze:` before"
        " its name, at which it stops once, as if by SIGSTOP, until somebody wakes it.",
        allowed="a step of docs/failure-scenarios.md, or *; freeze: may stand before it",
        development_only=True,
    )
    crash_chance: float = setting(
        1.0,
        "For rehearsals: the chance of it, each time the step is reached.",
        allowed="a number from 0 to 1",
        ge=0,
        le=1,
    )


class MetricsSettings(ServiceSettings):
    metrics_host: str = setting("127.0.0.1", "The address that METRICS_PORT is opened on.")
    metrics_port: int | None = setting(
        None,
        "The port on which this process shows its metrics to Prometheus at /metrics. The ingress"
        " shows its own at HTTP_PORT.",
        default_text="unset: not shown",
        ge=1,
        le=65535,
    )


def metadata(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    assert isinstance(extra, dict), "every field is made by setting()"
    return dict(extra)


def allowed(field: FieldInfo) -> str:
    """What the field takes, in words."""
    given = metadata(field)["allowed"]
    return str(given) if given else _allowed_by_type(field)


def _allowed_by_type(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind is bool:
        return "true or false"
    if kind is int:
        least = next(each.ge for each in field.metadata if hasattr(each, "ge"))
        most = next(each.le for each in field.metadata if hasattr(each, "le"))
        return f"a whole number from {least} to {most}"
    return "text"


def _bad_value(kind: type[ServiceSettings], error: ErrorDetails) -> str:
    name = str(error["loc"][0]).upper()
    field = kind.model_fields[name.lower()]
    given = name if metadata(field)["secret"] else f"{name}={error['input']}"
    return f"{given}: not allowed; allowed is {allowed(field)}"


def _unknown_keys(env_file: Path) -> Iterator[str]:
    if not env_file.is_file():
        return
    try:
        text = env_file.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{env_file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file}: cannot be read: it is not UTF-8 text") from None
    unknown = False
    for binding in parser.parse_stream(io.StringIO(text)):
        line = binding.original.line
        if binding.error:
            # Not shown: it may hold half a secret.
            yield f"{env_file} line {line}: not of the form NAME=value"
        elif binding.key is not None and binding.key not in setting_names.ALL:
            unknown = True
            near = difflib.get_close_matches(binding.key.upper(), setting_names.ALL, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{binding.key}: no such setting ({env_file} line {line}){hint}"
    if unknown:
        yield "allowed settings are " + ", ".join(sorted(setting_names.ALL))


def weak_secret(name: str, value: str) -> list[str]:
    wanted = f"allowed in production is a random text of {MIN_SECRET_LENGTH} bytes or more"
    if not value:
        return [f"{name}: not set; {wanted}"]
    if len(value.encode()) < MIN_SECRET_LENGTH or len(set(value)) < MIN_SECRET_DISTINCT:
        return [f"{name}: too short or too plain; {wanted}"]
    if value.lower().startswith(PLACEHOLDERS):
        return [f"{name}: a placeholder; {wanted}"]
    return []


def weak_password(name: str, value: str) -> list[str]:
    """A person's, which need not be random."""
    wanted = f"allowed in production are {MIN_PASSWORD_LENGTH} characters or more"
    if len(value) < MIN_PASSWORD_LENGTH or len(set(value)) < MIN_PASSWORD_DISTINCT:
        return [f"{name}: too short or too plain; {wanted}"]
    if value.lower().startswith(GUESSED_FIRST):
        return [f"{name}: among the first that are guessed; {wanted}"]
    return []
