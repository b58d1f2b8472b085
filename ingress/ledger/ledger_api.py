"""All of the API that is about money, wired: one way to the ledger and back, and the routes on it.

Making it opens nothing.
"""

import asyncio

from confluent_kafka import KafkaError, KafkaException

from ingress.audit.trail import AuditTrail
from ingress.auth.signing_keys import Keys
from ingress.http.routes import Route
from ingress.ledger.account_directory import AccountDirectory
from ingress.ledger.client.ledger_client import LedgerClient, QueueFull
from ingress.ledger.client.outcome_lookup import OutcomeLookup
from ingress.ledger.client.position_tokens import PositionTokens
from ingress.ledger.client.status_url import StatusUrls
from ingress.ledger.client.submission import Submission
from ingress.ledger.routes.accounts import AccountRoutes
from ingress.ledger.routes.commands import CommandRoutes
from ingress.ledger.routes.holds import HoldRoutes
from ingress.ledger.routes.legacy import LegacyRoutes
from ingress.ledger.routes.paged_lists import TransactionLists
from ingress.ledger.routes.submit import CommandSubmitter
from ingress.ledger.routes.transactions import TransactionRoutes
from ingress.ledger.routes.wallets import WalletRoutes
from ingress.settings import IngressSettings
from ingress.users.directory import People
from ingress.wallets import Openings
from plumbing.postgres.connection_pool import Pool
from plumbing.worker.crash_points import CrashPoints
from schemas import ids
from schemas.commands import Command

RELAY_TIMEOUT_S = 10.0


class LedgerApi:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        keys: Keys,
        people: People,
        openings: Openings,
        crash: CrashPoints,
        positions: PositionTokens,
        trail: AuditTrail,
    ) -> None:
        self._channel = LedgerClient(
            settings, ids.service_name(settings.ledger_id, "ingress"), crash
        )
        known = AccountDirectory(pool, people, openings)
        outcomes = OutcomeLookup(pool, known)
        submissions = Submission(self._channel, outcomes, crash)
        locations = StatusUrls(keys, positions, settings.api_v1_prefix)
        answers = CommandSubmitter(known, submissions, locations, trail)
        lists = TransactionLists(pool, known, people, outcomes, answers, positions)
        wallets = WalletRoutes(settings.default_currency, pool, known, people, openings, lists)
        self._parts = (
            TransactionRoutes(settings, pool, known, openings, answers),
            lists,
            HoldRoutes(settings, pool, known, submissions, answers, lists),
            CommandRoutes(submissions, locations, answers),
            wallets,
            AccountRoutes(settings.default_currency, pool, known, people, answers, lists, wallets),
            LegacyRoutes(pool, known, openings, lists, answers),
        )

    def routes(self) -> list[Route]:
        return [route for part in self._parts for route in part.routes()]

    async def start(self) -> None:
        await self._channel.start()

    @property
    def ended(self) -> asyncio.Future[None]:
        """Ends by an error that is not expected."""
        return self._channel.ended

    async def close(self) -> None:
        await self._channel.close()

    async def send(self, command: Command) -> tuple[int, int]:
        """For the relay: where Kafka has it. Raises KafkaException where that is not certain."""
        try:
            submission = self._channel.submit(command)
        except QueueFull:
            raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
        try:
            position = await submission.placed(RELAY_TIMEOUT_S)
        finally:
            self._channel.forget(submission)
        if position is None:
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))
        return position
