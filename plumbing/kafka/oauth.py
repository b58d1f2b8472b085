"""Tokens for OAUTHBEARER, for clients that do not fetch their own as librdkafka does.

Keeps the rule that a token is used until shortly before it ends, and that no error contains a
secret. It must not know which client presents the token.
"""

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from plumbing.settings import KafkaSettings

TIMEOUT_S = 10.0
# This part of a token's lifetime is used; the rest allows for clocks that differ.
USED_PART = 0.8
LIFE_S = 300.0


class NoToken(OSError):
    """The token endpoint gave none. Clients retry after an OSError, so it is one."""


class Tokens:
    """By the grant client_credentials. `token` blocks; it may be called from any thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        assert settings.kafka_oauth_token_url is not None, "the settings were checked"
        assert settings.kafka_oauth_client_id is not None, "likewise"
        assert settings.kafka_oauth_client_secret is not None, "likewise"
        self._url = settings.kafka_oauth_token_url
        form = {"grant_type": "client_credentials"}
        if settings.kafka_oauth_scope is not None:
            form["scope"] = settings.kafka_oauth_scope
        secret = settings.kafka_oauth_client_secret.get_secret_value()
        basic = f"{settings.kafka_oauth_client_id}:{secret}".encode()
        self._headers = {"Authorization": f"Basic {base64.b64encode(basic).decode()}"}
        self._form = urllib.parse.urlencode(form).encode()
        self._context = ssl.create_default_context(cafile=settings.kafka_oauth_ca_location)
        self._guard = threading.Lock()
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        with self._guard:
            if time.monotonic() >= self._until:
                requested_at = time.monotonic()
                self._token, life_s = self._fetch()
                self._until = requested_at + USED_PART * life_s
            return self._token

    def _fetch(self) -> tuple[str, float]:
        request = urllib.request.Request(self._url, self._form, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._context) as got:
                answer = json.load(got)
            return str(answer["access_token"]), float(answer.get("expires_in", LIFE_S))
        except urllib.error.HTTPError as error:
            with error:
                raise NoToken(f"{self._url} (KAFKA_OAUTH_TOKEN_URL): {error}") from None
        except OSError as error:
            raise NoToken(f"{self._url} (KAFKA_OAUTH_TOKEN_URL): {error}") from None
        except (ValueError, KeyError, TypeError):
            raise NoToken(f"{self._url} (KAFKA_OAUTH_TOKEN_URL): no token in its answer") from None
