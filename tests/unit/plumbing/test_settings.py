"""Wrong settings stop the start: each is named, with what is allowed, and nothing is guessed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compose.provisioning import ProvisionSettings
from ingress.settings import IngressSettings
from plumbing import setting_names
from plumbing.settings import SettingsError
from processor.settings import ProcessorSettings
from sinks.settings import SinkSettings

STRONG = "k7Qe2-0vXr9_Lm4Tz8Wb1Yc6Nd3Sf5Gh"
PRODUCTION = f"APP_ENV=production\nSIGNING_KEY={STRONG}\n"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in setting_names.ALL:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def refused(text: str, env_file: Path) -> list[str]:
    env_file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        IngressSettings.read(env_file)
    assert caught.value.exit_code == 2
    return list(caught.value.lines)


def test_without_anything_each_has_its_default(env_file: Path) -> None:
    settings = IngressSettings.read(env_file)
    assert (settings.app_name, settings.ledger_id) == ("streamledger", "streamledger")
    assert (settings.kafka_brokers, settings.database_url) == (None, None)
    assert (settings.partitions, settings.api_v1_prefix) == (2, "/api/v1")
    assert (settings.default_currency, settings.log_format) == ("NGN", "console")
    assert settings.topics.transactions == "transactions"
    assert ProcessorSettings.read(env_file).commission_bps == 150


def test_the_environment_wins_over_the_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("PARTITIONS=4\nHTTP_PORT=8001\nDEFAULT_CURRENCY='USD'  # dollars\n")
    monkeypatch.setenv("PARTITIONS", "16")
    settings = IngressSettings.read(env_file)
    assert (settings.partitions, settings.http_port) == (16, 8001)
    assert settings.default_currency == "USD"


def test_an_empty_value_is_unset(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("DATABASE_URL=\nPARTITIONS=\n")
    monkeypatch.setenv("KAFKA_BROKERS", "")
    settings = IngressSettings.read(env_file)
    assert settings.database_url is None
    assert settings.kafka_brokers is None
    assert settings.partitions == 2


def test_the_ledger_is_called_as_the_app_unless_told_otherwise(env_file: Path) -> None:
    env_file.write_text("APP_NAME=acme\n")
    assert IngressSettings.read(env_file).ledger_id == "acme"
    env_file.write_text("APP_NAME=acme\nLEDGER_ID=books\n")
    assert IngressSettings.read(env_file).ledger_id == "books"


def test_a_setting_of_another_service_is_known(env_file: Path) -> None:
    env_file.write_text("COMMISSION_BPS=10\nMETRICS_PORT=9100\n")
    assert IngressSettings.read(env_file).http_port == 8000


def test_settings_cannot_be_changed(env_file: Path) -> None:
    settings = SinkSettings.read(env_file)
    with pytest.raises(ValueError, match="frozen"):
        settings.partitions = 3


def test_every_unknown_key_and_every_bad_value_is_named_at_once(env_file: Path) -> None:
    lines = refused(
        "PARTITONS=4\nhttp_port=1\nPARTITIONS=none\nAPP_ENV=live\nthis is no setting\n", env_file
    )
    assert len(lines) == 6
    assert f"PARTITONS: no such setting ({env_file} line 1); did you mean PARTITIONS?" in lines
    assert f"http_port: no such setting ({env_file} line 2); did you mean HTTP_PORT?" in lines
    assert f"{env_file} line 5: not of the form NAME=value" in lines
    assert "PARTITIONS=none: not allowed; allowed is a whole number from 1 to 1024" in lines
    assert "APP_ENV=live: not allowed; allowed is one of development, production" in lines
    (every,) = (line for line in lines if line.startswith("allowed settings are "))
    assert all(name in every for name in setting_names.ALL)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("APP_NAME", "two words", "1 to 64 of"),
        ("LEDGER_ID", "x" * 65, "1 to 64 of"),
        ("LEDGER_ID", "tab\\t", "1 to 64 of"),
        ("DEFAULT_CURRENCY", "ngn", "ISO 4217"),
        ("DEFAULT_CURRENCY", "XQX", "ISO 4217"),
        ("DEMO_DATA", "perhaps", "true or false"),
        ("LOG_LEVEL", "loud", "one of DEBUG, INFO, WARNING, ERROR"),
        ("KAFKA_BROKERS", "localhost", "host:port"),
        ("KAFKA_BROKERS", "a:1,,b:2", "host:port"),
        ("KAFKA_TOPIC", "a/b", "A-Z a-z 0-9 . _ -"),
        ("KAFKA_TOPIC", "journal", "the name of another topic"),
        ("TOPIC_PREFIX", "a b", "A-Z a-z 0-9 . _ -"),
        ("PARTITIONS", "0", "a whole number from 1 to 1024"),
        ("PARTITIONS", "1025", "a whole number from 1 to 1024"),
        ("PARTITIONS", "8.5", "a whole number from 1 to 1024"),
        ("REPLICATION_FACTOR", "-1", "a whole number from 1 to 9"),
        ("ALLOW_BROKER_TXN_TIMEOUT_MS", "14999", "a whole number from 15000"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS", "one of PLAINTEXT, SSL"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI", "one of PLAIN, SCRAM-SHA-256"),
        ("KAFKA_SASL_USERNAME", "me", "not allowed with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ("KAFKA_SASL_MECHANISM", "PLAIN", "not allowed with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ("KAFKA_SSL_CA_LOCATION", "/ca.pem", "not allowed with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ("KAFKA_OAUTH_SCOPE", "a", "not allowed with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ("KAFKA_OAUTH_TOKEN_URL", "idp/token", "http:// or https://"),
        ("DATABASE_URL", "mysql://h/d", "postgresql://user:password@host:port/name"),
        ("DATABASE_POOL_SIZE", "0", "a whole number from 1 to 1000"),
        ("HTTP_PORT", "65536", "a whole number from 1 to 65535"),
        ("API_V1_PREFIX", "api", "not ending in /"),
        ("API_V1_PREFIX", "/api/", "not ending in /"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(
    name: str, value: str, allowed: str, env_file: Path
) -> None:
    (line,) = refused(f'{name}="{value}"\n', env_file)
    assert line.startswith(name)
    assert allowed in line


def test_a_bad_value_in_the_environment_is_refused_too(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PORT", "http")
    with pytest.raises(SettingsError, match="HTTP_PORT=http: not allowed"):
        IngressSettings.read(env_file)


def test_sasl_needs_all_its_parts(env_file: Path) -> None:
    lines = refused("KAFKA_SECURITY_PROTOCOL=SASL_SSL\nKAFKA_SASL_USERNAME=me\n", env_file)
    assert [line.split(":")[0] for line in lines] == ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_PASSWORD"]


def test_tokens_and_certificates_need_all_their_parts(env_file: Path) -> None:
    text = "KAFKA_SECURITY_PROTOCOL=SASL_SSL\nKAFKA_SASL_MECHANISM=OAUTHBEARER\n"
    text += "KAFKA_OAUTH_CLIENT_ID=books\nKAFKA_SASL_PASSWORD=hunter2\n"
    text += "KAFKA_SSL_CA_LOCATION=/no/ca.pem\nKAFKA_SSL_KEY_LOCATION=/no/key.pem\n"
    with_what = "with KAFKA_SASL_MECHANISM=OAUTHBEARER"
    assert refused(text, env_file) == [
        f"KAFKA_SASL_PASSWORD: not allowed {with_what}",
        f"KAFKA_OAUTH_TOKEN_URL: needed {with_what}",
        f"KAFKA_OAUTH_CLIENT_SECRET: needed {with_what}",
        "KAFKA_SSL_CERTIFICATE_LOCATION, KAFKA_SSL_KEY_LOCATION: both or neither",
        "KAFKA_SSL_CA_LOCATION=/no/ca.pem: no such file",
        "KAFKA_SSL_KEY_LOCATION=/no/key.pem: no such file",
    ]


def test_secrets_are_never_shown(env_file: Path) -> None:
    (line,) = refused("DATABASE_URL=mysql://me:hunter2@host/name\n", env_file)
    assert "hunter2" not in line
    (line,) = refused('SIGNING_KEY="hunter2\n', env_file)
    assert "hunter2" not in line
    env_file.write_text(f"SIGNING_KEY={STRONG}\nDATABASE_URL=postgresql://me:hunter2@host/name\n")
    shown = repr(IngressSettings.read(env_file))
    assert STRONG not in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("APP_ENV=production\n", "SIGNING_KEY: not set"),
        ("APP_ENV=production\nSIGNING_KEY=short\n", "SIGNING_KEY: too short"),
        (f"APP_ENV=production\nSIGNING_KEY={'ab' * 20}\n", "SIGNING_KEY: too short or too plain"),
        (f"APP_ENV=production\nSIGNING_KEY=change-me-{STRONG}\n", "SIGNING_KEY: a placeholder"),
        (PRODUCTION + "DEMO_DATA=true\n", "DEMO_DATA: only its default is allowed in production"),
    ],
)
def test_production_refuses_what_is_for_development(text: str, why: str, env_file: Path) -> None:
    (line,) = refused(text, env_file)
    assert line.startswith(why)


def test_production_starts_with_a_strong_key(env_file: Path) -> None:
    env_file.write_text(PRODUCTION)
    settings = IngressSettings.read(env_file)
    assert settings.production
    assert settings.log_format == "json"


def test_users_credit_themselves_in_production_only_where_that_is_set(env_file: Path) -> None:
    for text, allowed in (
        ("", True),
        ("SELF_CREDIT=false\n", False),
        (PRODUCTION, False),
        (PRODUCTION + "SELF_CREDIT=\n", False),
        (PRODUCTION + "SELF_CREDIT=true\n", True),
    ):
        env_file.write_text(text)
        assert IngressSettings.read(env_file).self_credit == allowed, text


def test_brokers_and_database_are_asked_for_where_they_are_needed(env_file: Path) -> None:
    settings = IngressSettings.read(env_file)
    with pytest.raises(SettingsError, match=r"^KAFKA_BROKERS: not set"):
        _ = settings.brokers
    with pytest.raises(SettingsError, match=r"^DATABASE_URL: not set"):
        _ = settings.database


def test_a_file_that_is_not_text_is_refused(env_file: Path) -> None:
    env_file.write_bytes(b"APP_NAME=\xff\xfe\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        IngressSettings.read(env_file)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("SIGNING_KEY_PREVIOUS=tiny", "SIGNING_KEY_PREVIOUS: too short or too plain"),
        (f"SIGNING_KEY_PREVIOUS={'ab' * 20}", "SIGNING_KEY_PREVIOUS: too short or too plain"),
        (f"SIGNING_KEY_PREVIOUS=secret-{STRONG}", "SIGNING_KEY_PREVIOUS: a placeholder"),
        ("ADMIN_PASSWORD=eleven char", "ADMIN_PASSWORD: too short or too plain"),
        ("ADMIN_PASSWORD=aaaaaabbbbbb", "ADMIN_PASSWORD: too short or too plain"),
        ("ADMIN_PASSWORD=Password1234567", "ADMIN_PASSWORD: among the first that are guessed"),
    ],
)
def test_secrets_that_may_be_unset_are_strong_in_production(
    env_file: Path, line: str, why: str
) -> None:
    (told,) = refused(f"{PRODUCTION}{line}\n", env_file)
    assert told.startswith(why)
    value = line.partition("=")[2]
    assert value not in told
    env_file.write_text(f"{line}\n")
    IngressSettings.read(env_file)
    env_file.write_text(
        f"{PRODUCTION}SIGNING_KEY_PREVIOUS={STRONG[::-1]}\nADMIN_PASSWORD=correct horse battery\n"
    )
    IngressSettings.read(env_file)


def test_lifetimes_go_together(env_file: Path) -> None:
    assert refused("ACCESS_TOKEN_TTL_S=600\nSESSION_TTL_S=500\n", env_file) == [
        "ACCESS_TOKEN_TTL_S: longer than SESSION_TTL_S"
    ]
    assert refused("API_KEY_TTL_S=600\nAPI_KEY_MAX_TTL_S=500\n", env_file) == [
        "API_KEY_TTL_S: longer than API_KEY_MAX_TTL_S"
    ]


def test_the_list_of_names_is_what_the_services_read() -> None:
    read = {
        name.upper()
        for kind in (IngressSettings, ProcessorSettings, SinkSettings, ProvisionSettings)
        for name in kind.model_fields
    }
    assert set(setting_names.ALL) == read
    assert len(setting_names.ALL) == len(read)


def test_the_command_line_tells_it_in_plain_lines_and_ends_with_2(env_file: Path) -> None:
    env_file.write_text("PARTITONS=4\nHTTP_PORT=no\n")
    outside = {name: value for name, value in os.environ.items() if name not in setting_names.ALL}
    ended = subprocess.run(
        [sys.executable, "-m", "compose.cli.main", "ingress"],
        cwd=env_file.parent,
        env=outside,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"streamledger: \S", line) for line in lines)
