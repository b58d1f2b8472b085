"""The name of every setting that any part of the system reads, once, in the order that the docs
show them in.

One `.env` serves all services and each of them refuses a key that nobody reads, so each must know
the names of all, without importing the others. A test holds this list equal to the services' own.
"""

ALL = (
    # every service
    "APP_NAME",
    "LEDGER_ID",
    "APP_ENV",
    "DEFAULT_CURRENCY",
    "DEMO_DATA",
    "LOG_LEVEL",
    "LOG_FORMAT",
    # Kafka and the topics
    "KAFKA_BROKERS",
    "KAFKA_TOPIC",
    "TOPIC_PREFIX",
    "PARTITIONS",
    "REPLICATION_FACTOR",
    "ALLOW_BROKER_TXN_TIMEOUT_MS",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_OAUTH_TOKEN_URL",
    "KAFKA_OAUTH_CLIENT_ID",
    "KAFKA_OAUTH_CLIENT_SECRET",
    "KAFKA_OAUTH_SCOPE",
    "KAFKA_OAUTH_CA_LOCATION",
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "KAFKA_SSL_KEY_PASSWORD",
    # Postgres
    "DATABASE_URL",
    "DATABASE_POOL_SIZE",
    "INGRESS_DATABASE_PASSWORD",
    "SINK_DATABASE_PASSWORD",
    # the endpoint for Prometheus of services without an HTTP side of their own
    "METRICS_HOST",
    "METRICS_PORT",
    # the ingress
    "HTTP_HOST",
    "HTTP_PORT",
    "API_V1_PREFIX",
    "SIGNING_KEY",
    "SIGNING_KEY_PREVIOUS",
    "ACCESS_TOKEN_TTL_S",
    "SESSION_TTL_S",
    "COOKIE_TTL_S",
    "PASSWORD_CONCURRENCY",
    "PASSWORD_MEMORY_KIB",
    "LOGIN_FAILURES_PER_EMAIL",
    "LOGIN_FAILURES_PER_ADDRESS",
    "LOGIN_WINDOW_S",
    "TRUSTED_PROXIES",
    "ADMIN_EMAIL",
    "ADMIN_PASSWORD",
    "REQUIRE_TRANS_ID",
    "REGISTRATION_OPEN",
    "SELF_CREDIT",
    # the processor
    "DATA",
    "SESSION_TIMEOUT_MS",
    "CACHE_ENTRIES",
    "ROCKSDB_MIB",
    "SCHEMA_REGISTRY_URL",
    "TRANSACTIONS_ENCODING",
    "COMMISSION_BPS",
    "MAX_OVERDRAFT",
    "HOLD_TTL_MS",
    "PARTICIPANT_TIMEOUT_MS",
    "MAX_PENDING",
    "CRASH_AT",
    "CRASH_CHANCE",
)
