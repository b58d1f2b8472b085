"""How entries are encoded for `transactions`; chosen once, when a processor starts.

Keeps the rule that a topic has the configured encoding or nothing: if it needs a registry's id and
the registry does not give one, the processor does not start. It must not know a batch.
"""

from collections.abc import Callable

import structlog

from plumbing.failures import Failure
from processor.settings import ProcessorSettings
from schemas.encoding import avro, codecs
from schemas.encoding.avro_schema_cache import AvroSchemas
from schemas.encoding.schema_registry import RegistryRefused, RegistryUnreachable
from schemas.published_records import TransactionRecord

log = structlog.get_logger(__name__)

Encode = Callable[[TransactionRecord], bytes]


def transaction_encoder(settings: ProcessorSettings, schemas: AvroSchemas) -> Encode:
    match settings.transactions_encoding:
        case "json":
            return codecs.encode_json
        case "avro":
            return codecs.transactions_as_single_objects()
    subject = f"{settings.topics.transactions}-value"
    try:
        id = schemas.registered(subject, avro.transaction_schema())
    except (RegistryUnreachable, RegistryRefused) as error:
        raise Failure(
            f"TRANSACTIONS_ENCODING=confluent needs an id for the schema of {subject}: {error}"
        ) from None
    log.info("transactions are written in Avro", subject=subject, schema=id)
    return codecs.transactions_as_confluent(id)
