"""The command line `streamledger`: wiring only, each command imports what it needs when it runs.

Rule: errors that an operator can act on are plain lines, never a traceback. Exit code 0: done; 1:
could not be done; 2: wrong usage or a wrong setting. A defect keeps its traceback.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from compose.cli import up
from compose.embedded.problems import RuntimeProblem
from plumbing import failures
from schemas import ids

if TYPE_CHECKING:
    from processor.admin.rebuild_state import StateSources

app = typer.Typer(
    name="streamledger",
    help="A Kafka-first ledger: commands in a topic, decisions once, the books in Postgres.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
topics = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
dead_letters = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
rebuild = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
users = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Position = Annotated[
    str, typer.Argument(metavar="PARTITION:OFFSET", help="Where the command lies in `commands`.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"streamledger {metadata.version('streamledger')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


app.command()(up.up)
app.command()(up.status)
app.command()(up.down)


@app.command()
def processor(
    data: Annotated[
        Path | None, typer.Option(help="Its folder for local state, one for each instance.")
    ] = None,
) -> None:
    """Own partitions and decide their commands until stopped."""
    from processor import service

    service.run(data)


@app.command()
def sink() -> None:
    """Write the journal to Postgres, and results to Kafka, until stopped."""
    from sinks import service

    service.run()


@app.command()
def configure(
    data: up.Data = up.DATA,
    commission_bps: Annotated[int | None, typer.Option(help="Basis points of a transfer.")] = None,
    max_overdraft: Annotated[int | None, typer.Option(help="Minor units below 0.")] = None,
    hold_ttl_ms: Annotated[int | None, typer.Option(help="Of holds that name no time.")] = None,
    participant_timeout_ms: Annotated[int | None, typer.Option(help="Of other partitions.")] = None,
    max_pending: Annotated[int | None, typer.Option(help="Transactions, per partition.")] = None,
    format_level: Annotated[
        int | None, typer.Option(min=1, help="Raise it once every worker is upgraded.")
    ] = None,
    rules_version: Annotated[
        int | None, typer.Option(min=1, help="Of docs/rules.md; it only rises.")
    ] = None,
) -> None:
    """Change the settings that decide, in every partition of the ledger."""
    from compose.cli import embedded_connection
    from plumbing.kafka import auth_errors
    from processor.admin import configure as service
    from processor.admin.running_workers import Groups

    parameters = {
        "commission_bps": commission_bps,
        "max_overdraft": max_overdraft,
        "hold_ttl_ms": hold_ttl_ms,
        "participant_timeout_ms": participant_timeout_ms,
        "max_pending": max_pending,
        "format_level": format_level,
        "rules_version": rules_version,
    }
    changes = {name: value for name, value in parameters.items() if value is not None}
    settings = embedded_connection.settings(data)
    config = embedded_connection.client(settings, f"{settings.ledger_id}-configure")
    prefix, ledger_id = settings.topic_prefix, settings.ledger_id
    groups = Groups(*(ids.service_id(prefix, ledger_id, each) for each in ("processor", "sink")))
    with auth_errors.as_failures(config):
        changed = service.configure(
            config, settings.topics, ledger_id, settings.partitions, groups, changes
        )
    for done in changed:
        typer.echo(f"partition {done.partition}: version {done.version}: {done.after}")


@app.command("log-time")
def log_time(
    position: Annotated[
        str, typer.Argument(metavar="PARTITION:OFFSET", help="Where the first record lies.")
    ],
    topic: Annotated[Literal["commands", "coordination"], typer.Option(help="In which topic.")],
    time: Annotated[str, typer.Option(help="The time to use, such as 2026-01-31T12:00:00Z.")],
    through: Annotated[
        int | None, typer.Option(min=0, help="The last offset.", show_default="the first")
    ] = None,
    data: up.Data = up.DATA,
) -> None:
    """Decide the time of records that a broker stamped far in the future."""
    from compose.cli import embedded_connection
    from plumbing.kafka import auth_errors
    from processor.admin import dead_letters as service_of_positions
    from processor.admin import log_time as service
    from processor.lanes import log_time_decisions
    from schemas.coordination import LogTime

    partition, first = service_of_positions.parsed(position)
    last = first if through is None else through
    decision = LogTime(topic=topic, first=first, last=last, time_ms=service.time_ms(time))
    settings = embedded_connection.settings(data)
    config = embedded_connection.client(settings, f"{settings.ledger_id}-log-time")
    with auth_errors.as_failures(config):
        service.give(config, settings.topics, partition, decision)
    typer.echo(
        f"written: partition {partition} decides {topic} {first} to {last} as of"
        f" {log_time_decisions.time_text(decision.time_ms)}, where their log time is later"
    )


@app.command()
def ingress() -> None:
    """Serve HTTP until stopped."""
    from ingress import service

    service.run()


@app.command()
def produce(
    file: Annotated[
        Path | None, typer.Option(help="Read from this file.", show_default="standard input")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for each result and show it.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any was rejected; implies --wait.")
    ] = False,
    as_json: up.Json = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds without any news.")] = 30.0,
    data: up.Data = up.DATA,
) -> None:
    """Send commands, one of JSON on each line, by the key and partition of their accounts."""
    from compose.cli import embedded_connection
    from compose.cli import produce as service

    settings = embedded_connection.settings(data)
    client_id = f"{settings.ledger_id}-produce"
    embedded_connection.reach(settings, client_id)
    with service.lines(file) as lines:
        commands = service.Commands(settings, client_id, wait=wait or strict, timeout_s=timeout)
        for event in commands.send(lines):
            service.show(event, as_json)
    raise typer.Exit(service.report(commands.tally, strict))


@app.command()
def transfer(
    sender: Annotated[str, typer.Option("--from", help="The sender's e-mail address.")],
    receiver: Annotated[str, typer.Option("--to", help="The receiver's e-mail address.")],
    amount: Annotated[
        str, typer.Option(help="Of each: an integer of minor units, or major units as 1.50.")
    ],
    count: Annotated[int, typer.Option(min=1, help="How many transfers in all.")] = 1,
    processes: Annotated[int, typer.Option(min=1, max=64, help="How many send at once.")] = 1,
    password: Annotated[
        str, typer.Option(help="The sender's.", envvar="STREAMLEDGER_PASSWORD")
    ] = "password",
    url: Annotated[
        str | None, typer.Option(help="Where the ingress is.", show_default="that of `up`")
    ] = None,
    data: up.Data = up.DATA,
) -> None:
    """Send money from one user to another, over HTTP, COUNT times; exit code 1 unless all
    were posted."""
    from collections import Counter

    from compose.cli import embedded_connection
    from compose.cli import transfer as service

    where = url or embedded_connection.url(data)
    transfers = service.TransferRun(where, "/api/v1", sender, password, receiver, amount, count)
    statuses: Counter[str] = Counter()
    for share in service.run(transfers, processes):
        statuses.update(share)
    typer.echo("  ".join(f"{name} {number}" for name, number in statuses.most_common()))
    raise typer.Exit(0 if statuses["posted"] == count else 1)


@app.command()
def consume(
    topic: Annotated[str, typer.Argument(help="Its name, without prefix.")] = "transactions",
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="All that is kept, then end.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what comes; so it is without a beginning.")
    ] = False,
    key: Annotated[str | None, typer.Option(help="Only records with this key.")] = None,
    most: Annotated[int | None, typer.Option("-n", min=1, help="End after so many.")] = None,
    as_json: up.Json = False,
    registry: Annotated[
        str | None, typer.Option(metavar="URL", help="Where Avro schemas have their ids.")
    ] = None,
    data: up.Data = up.DATA,
) -> None:
    """Show what is committed in a topic of the ledger."""
    from itertools import islice

    from compose.cli import consume as service
    from compose.cli import embedded_connection

    settings = embedded_connection.settings(data)
    client_id = f"{settings.ledger_id}-consume"
    embedded_connection.reach(settings, client_id)
    found = service.records(
        settings,
        client_id,
        topic,
        service.schemas(registry),
        key=key,
        from_beginning=from_beginning,
        follow=follow or not from_beginning,
    )
    try:
        for record in islice(found, most):
            service.show(record, as_json)
    except KeyboardInterrupt:
        raise typer.Exit from None  # how one ends what follows


@app.command()
def verify(
    against_rules: Annotated[
        bool, typer.Option("--against-rules", help="Decide every record again, too.")
    ] = False,
    postgres: Annotated[bool, typer.Option(help="Whether Postgres is compared.")] = True,
    as_json: up.Json = False,
    data: up.Data = up.DATA,
) -> None:
    """Prove that journal, commands, state and Postgres agree: exit code 0 if all do."""
    from compose.cli import embedded_connection
    from sinks.verify import progress_bar, verification

    settings = embedded_connection.settings(data)
    options = verification.VerifyOptions(
        config=embedded_connection.client(settings, f"{settings.ledger_id}-verify"),
        names=settings.topics,
        partitions=settings.partitions,
        database_url=settings.database if postgres else None,
        against_rules=against_rules,
    )
    with progress_bar.progress_bar("journal") as progress:
        report = verification.verify(options, progress)
    typer.echo(report.json() if as_json else report.text())
    raise typer.Exit(0 if report.agree else 1)


@rebuild.command("postgres")
def rebuild_postgres(
    drop_replaced: Annotated[
        bool, typer.Option("--drop-replaced", help="Delete the tables that were replaced.")
    ] = False,
    data: up.Data = up.DATA,
) -> None:
    """Rebuild the tables in Postgres from the journal, beside the live ones, and switch."""
    from compose.cli import embedded_connection
    from sinks import rebuild as service
    from sinks.verify import progress_bar

    settings = embedded_connection.settings(data)
    sources = service.PostgresSources(
        embedded_connection.client(settings, f"{settings.ledger_id}-rebuild"),
        settings.topics,
        settings.ledger_id,
        settings.partitions,
        settings.database,
    )
    with progress_bar.partitions_progress_bar("journal") as progress:
        done = service.rebuild(sources, progress)
    for partition, sequence in enumerate(done.sequences):
        typer.echo(f"partition {partition}: {sequence:,} journal records")
    if drop_replaced:
        service.drop(settings.database, done.replaced)
    else:
        typer.echo(f"the tables that were replaced are in the schema {done.replaced}")


@rebuild.command("state")
def rebuild_state(
    folder: Annotated[Path, typer.Argument(help="A new folder, for a processor's --data.")],
    from_journal: Annotated[
        bool, typer.Option("--from-journal", help="From `journal`, not from `state`.")
    ] = False,
    data: up.Data = up.DATA,
) -> None:
    """Rebuild a processor's local copy of all partitions."""
    from processor.admin import rebuild_state as service
    from sinks.verify import progress_bar

    make = service.from_journal if from_journal else service.from_state
    with progress_bar.partitions_progress_bar("records") as progress:
        done = make(_state_sources(data), folder, progress)
    for each in done:
        typer.echo(f"partition {each.partition}: as of journal record {each.sequence:,}")


@rebuild.command("state-topic")
def rebuild_state_topic(
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the topic is there and whole.")
    ] = False,
    data: up.Data = up.DATA,
) -> None:
    """Rewrite the topic `state`, lost or cut, from the journal. Stop the processors first."""
    from processor.admin import rebuild_changelog as service
    from sinks.verify import progress_bar

    with progress_bar.partitions_progress_bar("journal") as progress:
        done = service.write_anew(_state_sources(data), progress, replace=replace)
    for each in done:
        typer.echo(f"partition {each.partition}: as of journal record {each.sequence:,}")


def _state_sources(data: Path) -> "StateSources":
    """By the processor's own client id: who rewrites its state takes its place."""
    from compose.cli import embedded_connection
    from processor.admin.rebuild_state import StateSources

    settings = embedded_connection.settings(data)
    config = embedded_connection.client(settings, ids.service_name(settings.ledger_id, "processor"))
    return StateSources(config, settings.topics, settings.ledger_id, settings.partitions)


@users.command("create-admin")
def create_admin(
    email: Annotated[str, typer.Option(help="The address to sign in with.")],
    first_name: Annotated[str, typer.Option(help="Shown to others.")] = "Admin",
    last_name: Annotated[str, typer.Option(help="Shown to others.")] = "",
    data: up.Data = up.DATA,
) -> None:
    """Make an admin, who can give others their roles. Asks for the password, or reads a line."""
    from compose.cli import embedded_connection
    from ingress.admin import first_admin

    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    database = embedded_connection.settings(data).database
    first_admin.create(database, email, first_name, last_name, password)
    typer.echo(f"{email} is an admin")


app.add_typer(users, name="users", help="People who may sign in.")
app.add_typer(rebuild, name="rebuild", help="Rebuild copies of the ledger from its log.")
app.add_typer(topics, name="topics", help="Make and check the topics.")
app.add_typer(dead_letters, name="dead-letters", help="What could not be read, and why.")


@dead_letters.command("list")
def list_dead_letters(data: up.Data = up.DATA) -> None:
    """A line for each: position, reason, size, label."""
    from compose.cli import embedded_connection
    from plumbing.kafka import auth_errors
    from plumbing.kafka.committed_reader import CommittedReader
    from processor.admin import dead_letters as service

    settings = embedded_connection.settings(data)
    config = embedded_connection.client(settings, f"{settings.ledger_id}-dead-letters")
    with auth_errors.as_failures(config), CommittedReader(config) as reader:
        for letter in service.letters(reader, settings.topics):
            position = f"{letter.partition}:{letter.offset}"
            columns = (
                position,
                letter.reason,
                f"{letter.size} bytes",
                letter.id or "-",
                letter.detail,
            )
            typer.echo("  ".join(str(each) for each in columns))


@dead_letters.command("show")
def show_dead_letter(position: Position, data: up.Data = up.DATA) -> None:
    """The letter as JSON, then the command as it was written."""
    import msgspec

    from compose.cli import embedded_connection
    from plumbing.kafka import auth_errors
    from plumbing.kafka.committed_reader import CommittedReader
    from processor.admin import dead_letters as service

    settings = embedded_connection.settings(data)
    config = embedded_connection.client(settings, f"{settings.ledger_id}-dead-letters")
    with auth_errors.as_failures(config), CommittedReader(config) as reader:
        letter, original = service.find(reader, settings.topics, position)
    typer.echo(msgspec.json.format(msgspec.json.encode(letter), indent=2).decode())
    sys.stdout.flush()
    sys.stdout.buffer.write((original.value or b"") + b"\n")


@dead_letters.command("resubmit")
def resubmit_dead_letter(
    position: Position,
    value: Annotated[
        Path | None, typer.Option(help="Send the contents of this file in its place.")
    ] = None,
    data: up.Data = up.DATA,
) -> None:
    """Send the command again, by the key and partition of its account."""
    from compose.cli import embedded_connection
    from plumbing.kafka import auth_errors
    from plumbing.kafka.committed_reader import CommittedReader
    from processor.admin import dead_letters as service

    instead = None if value is None else service.contents(value)
    settings = embedded_connection.settings(data)
    client_id = f"{settings.ledger_id}-dead-letters"
    config = embedded_connection.client(settings, client_id)
    with auth_errors.as_failures(config):
        with CommittedReader(config) as reader:
            _, original = service.find(reader, settings.topics, position)
        sent = original.value or b"" if instead is None else instead
        account, partition, offset = service.resubmit(settings, client_id, sent)
    typer.echo(f"sent for {account} as {partition}:{offset}")


@topics.command("create")
def create_topics(data: up.Data = up.DATA) -> None:
    """Make the topics that are missing."""
    from compose import provisioning
    from compose.cli import embedded_connection

    settings = embedded_connection.settings(data)
    created = provisioning.create_topics(settings.brokers, settings)
    typer.echo("\n".join(f"created {name}" for name in created) or "all topics are there")


@topics.command("check")
def check_topics(data: up.Data = up.DATA) -> None:
    """Name whatever is not as the ledger needs it."""
    from compose import provisioning
    from compose.cli import embedded_connection

    settings = embedded_connection.settings(data)
    provisioning.check_topics(settings.brokers, settings)
    typer.echo("the topics are as they must be")


@topics.command("acls")
def topic_acls(
    role: Annotated[
        str | None, typer.Argument(help="Only this one's.", show_default="all of them")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Who has the role.", show_default="as the role is called")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Make them, which an administrator may.")
    ] = False,
    data: up.Data = up.DATA,
) -> None:
    """Show the ACLs of each user of a secured Kafka, as commands of its own tool."""
    from compose import acls
    from compose.cli import embedded_connection
    from plumbing.kafka import clients, topic_check

    wanted = acls.wanted(role, user)
    settings = embedded_connection.settings(data)
    names, ledger_id = settings.topics, settings.ledger_id
    if apply:
        admin = clients.admin(settings, f"{ledger_id}-acls")
        topic_check.cluster_layout(admin, settings)
        typer.echo(f"{acls.apply(admin, wanted, names, ledger_id)} ACLs are there")
    else:
        typer.echo("\n".join(acls.commands(wanted, names, ledger_id)))


@app.command()
def migrate(data: up.Data = up.DATA) -> None:
    """Bring the Postgres schema to this version."""
    from compose import provisioning
    from compose.cli import embedded_connection

    settings = embedded_connection.settings(data)
    applied = provisioning.migrate(settings.database, settings.role_passwords())
    typer.echo("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")


def main() -> None:
    try:
        app()
    except failures.Failure as failure:
        sys.exit(failures.report(failure))
    except RuntimeProblem as problem:
        sys.exit(failures.report(failures.Failure(str(problem))))


if __name__ == "__main__":
    main()
