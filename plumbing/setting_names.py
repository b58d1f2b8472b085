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
    "KAFKA_SSL_CA_LOCATION",
    # Postgres
    "DATABASE_URL",
    "DATABASE_POOL_SIZE",
    # the endpoint for Prometheus of services without an HTTP side of their own
    "METRICS_HOST",
    "METRICS_PORT",
    # the ingress
    "HTTP_HOST",
    "HTTP_PORT",
    "API_V1_PREFIX",
    "SIGNING_KEY",
    # the processor
    "DATA",
    "SESSION_TIMEOUT_MS",
    "CACHE_ENTRIES",
    "ROCKSDB_MIB",
    "SCHEMA_REGISTRY_URL",
    "COMMISSION_BPS",
    "MAX_OVERDRAFT",
    "HOLD_TTL_MS",
    "PARTICIPANT_TIMEOUT_MS",
    "MAX_PENDING",
    "CRASH_AT",
    "CRASH_CHANCE",
)
