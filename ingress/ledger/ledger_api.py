"""All of the API that is about money, wired: one way to the ledger and back, and the routes on it.

Making it opens nothing.
"""

import asyncio

from confluent_kafka import KafkaError, KafkaException

from ingress.audit.trail import AuditTrail
from ingress.auth.signing_keys import Keys
from ingress.http.routes import Route
from ingress.ledger.account_directory import Accounts
from ingress.ledger.client.ledger_client import Channel, Full
from ingress.ledger.client.outcome_lookup import Outcomes
from ingress.ledger.client.position_tokens import Positions
from ingress.ledger.client.status_url import Locations
from ingress.ledger.client.submission import Submissions
from ingress.ledger.routes.accounts import AccountRoutes
from ingress.ledger.routes.commands import Polling
from ingress.ledger.routes.holds import Holds
from ingress.ledger.routes.legacy import LegacyRoutes
from ingress.ledger.routes.paged_lists import Listing
from ingress.ledger.routes.submit import Answers
from ingress.ledger.routes.transactions import Transactions
from ingress.ledger.routes.wallets import Wallets
from ingress.settings import IngressSettings
from ingress.users.directory import People
from ingress.wallets import Openings
from plumbing.postgres.connection_pool import Pool
from plumbing.worker.crash_points import CrashPoints
from schemas import ids
from schemas.commands import Command

SEND_S = 10.0


class LedgerApi:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        keys: Keys,
        people: People,
        openings: Openings,
        crash: CrashPoints,
        positions: Positions,
        trail: AuditTrail,
    ) -> None:
        self._channel = Channel(settings, ids.service_name(settings.ledger_id, "ingress"), crash)
        known = Accounts(pool, people, openings)
        outcomes = Outcomes(pool, known)
        submissions = Submissions(self._channel, outcomes, crash)
        locations = Locations(keys, positions, settings.api_v1_prefix)
        answers = Answers(known, submissions, locations, trail)
        lists = Listing(pool, known, people, outcomes, answers, positions)
        wallets = Wallets(settings.default_currency, pool, known, people, openings, lists)
        self._parts = (
            Transactions(settings, pool, known, openings, answers),
            lists,
            Holds(settings, pool, known, submissions, answers, lists),
            Polling(submissions, locations, answers),
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
        except Full:
            raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
        try:
            position = await submission.placed(SEND_S)
        finally:
            self._channel.forget(submission)
        if position is None:
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))
        return position
