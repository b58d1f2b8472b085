"""The part of the API that is about money, wired: one path to the ledger and back, and its routes.

Constructing it opens nothing.
"""

import asyncio

from confluent_kafka import KafkaError, KafkaException

from ingress.audit.trail import AuditTrail
from ingress.auth.signing_keys import SigningKeys
from ingress.http.position_tokens import PositionTokens
from ingress.http.routes import Route
from ingress.ledger.account_directory import AccountDirectory
from ingress.ledger.client.ledger_client import LedgerClient, QueueFull
from ingress.ledger.client.outcome_lookup import OutcomeLookup
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
from ingress.ledger.views.responses import TransactionPresenter
from ingress.settings import IngressSettings
from ingress.users.directory import UserDirectory
from ingress.wallets.directory import WalletDirectory
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
        keys: SigningKeys,
        users: UserDirectory,
        wallets: WalletDirectory,
        crash: CrashPoints,
        tokens: PositionTokens,
        trail: AuditTrail,
    ) -> None:
        self._client = LedgerClient(
            settings, ids.service_name(settings.ledger_id, "ingress"), crash
        )
        directory = AccountDirectory(pool, users, wallets)
        outcomes = OutcomeLookup(pool, directory)
        submission = Submission(self._client, outcomes, crash)
        status_urls = StatusUrls(keys, tokens, settings.api_v1_prefix)
        presenter = TransactionPresenter(directory)
        submitter = CommandSubmitter(submission, presenter, status_urls, trail)
        lists = TransactionLists(pool, directory, users, outcomes, presenter, tokens)
        currency = settings.default_currency
        wallet_routes = WalletRoutes(currency, pool, directory, users, wallets, lists)
        self._route_groups = (
            TransactionRoutes(settings, pool, directory, submitter),
            lists,
            HoldRoutes(settings, pool, directory, submission, submitter, lists),
            CommandRoutes(submission, status_urls, presenter),
            wallet_routes,
            AccountRoutes(currency, pool, directory, users, submitter, lists, wallet_routes),
            LegacyRoutes(pool, directory, lists, submitter, presenter),
        )

    def routes(self) -> list[Route]:
        return [route for group in self._route_groups for route in group.routes()]

    async def start(self) -> None:
        await self._client.start()

    @property
    def ended(self) -> asyncio.Future[None]:
        """Fails with an unexpected error."""
        return self._client.ended

    async def close(self) -> None:
        await self._client.close()

    async def send(self, command: Command) -> tuple[int, int]:
        """Sends a command of the outbox relay and waits for its position in Kafka. Raises
        KafkaException if it is not certain that Kafka has it."""
        try:
            pending = self._client.send(command)
        except QueueFull:
            raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
        try:
            position = await pending.wait_for_position(RELAY_TIMEOUT_S)
        finally:
            self._client.forget(pending)
        if position is None:
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))
        return position
