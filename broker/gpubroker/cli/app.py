"""The commands. Each hands over to its own module, which is imported when it is needed."""

# Annotations are read when the commands are made, so they must be values and not text, except
# those of what is imported at first use.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpubroker.cli import options, plan_options, policy, serve_options
from gpubroker.cli.command import Json, LedgerPlace, command

if TYPE_CHECKING:
    from gpubroker.cli.plan import Asked as PlanAsked
    from gpubroker.cli.traffic import Said
    from gpubroker.model.jobs import Job
    from gpubroker.model.requirements import Requirements
    from gpubroker.model.services import Service
    from gpubroker.settings import Settings

app = typer.Typer(
    name="gpubroker",
    help="Rent the cheapest GPU that can do a job, run it, bring the results back, give the "
    "machine up, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LIMITS = "Limits"
_SHOWING = "What is shown"


def _version(wanted: bool) -> None:
    if wanted:
        from gpubroker import __version__

        print(f"gpubroker {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
]


@app.callback()
def everywhere(
    ctx: typer.Context,
    ledger: LedgerPlace = None,
    version: Version = False,  # noqa: ARG001 - its callback does it all
) -> None:
    """Rent the cheapest GPU that can do a job, run it, bring the results back, give it up."""
    ctx.obj = ledger


Budget = Annotated[
    str | None,
    typer.Option(
        metavar="USD",
        help="Most that this may cost, failed attempts included.",
        rich_help_panel=_LIMITS,
    ),
]
Lifetime = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long the machine may live, whatever happens.  \\[default: 1h]",
        rich_help_panel=_LIMITS,
    ),
]
ProofWait = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="How long to wait for proof that the machine is gone.",
        rich_help_panel=_LIMITS,
    ),
]
OnOwnerDeath = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="What `reap`, or any broker, does with the machine when this process was killed: "
        "release, or adopt: it goes on with the command and delivers its outputs, and so does "
        "`attach`.",
        rich_help_panel=_LIMITS,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing but what went wrong."),
]


@command(app, wanted=options.requirements, choice=policy.policy, job=options.job)
def run(
    settings: "Settings",
    wanted: "tuple[Requirements, ...]",
    choice: dict[str, Any],
    job: "Job",
    budget: Budget = None,
    lifetime: Lifetime = None,
    proof_wait: ProofWait = "60s",
    on_owner_death: OnOwnerDeath = "release",
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Rent a machine, run a command on it, bring the outputs back, and give the machine up.

    The command's exit code is passed on. 124: it ran out of time. 125: the broker failed, an
    output is missing, or the machine is not proven gone.
    """
    from gpubroker.cli.run import Asked, run

    chosen = policy.policy_of(settings, choice)
    asked = Asked.of(wanted, chosen, job, budget, lifetime, proof_wait, on_owner_death)
    return run(settings, asked, quiet=quiet, as_json=as_json)


@command(app, wanted=options.requirements, choice=policy.policy, server=serve_options.server)
def serve(
    settings: "Settings",
    wanted: "tuple[Requirements, ...]",
    choice: dict[str, Any],
    server: "Service",
    budget: Budget = None,
    lifetime: Lifetime = None,
    proof_wait: ProofWait = "60s",
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Rent a machine, run a server on it, and print its address here, until Ctrl-C ends all.

    Exits with 125 if the server fails, whose last words are shown then.
    """
    from gpubroker.cli.serve import Asked, serve

    chosen = policy.policy_of(settings, choice)
    asked = Asked.of(wanted, chosen, server, budget, lifetime, proof_wait)
    return serve(settings, asked, quiet=quiet, as_json=as_json)


@command(app, "map", wanted=options.requirements, choice=policy.policy, job=options.job)
def map_(
    settings: "Settings",
    wanted: "tuple[Requirements, ...]",
    choice: dict[str, Any],
    job: "Job",
    inputs: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="One input in each line; of a .jsonl, one JSON value. - is standard input.",
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Go on under this name after a crash, without doing work again."
        ),
    ] = "",
    machines: Annotated[int, typer.Option(metavar="N", help="Machines at a time.")] = 1,
    per_machine: Annotated[
        int, typer.Option(metavar="N", help="Jobs at a time on each machine.")
    ] = 1,
    again: Annotated[
        int, typer.Option(metavar="N", help="How often to start a job again that has failed.")
    ] = 1,
    budget: Annotated[
        str | None, typer.Option(metavar="USD", help="USD that all of it may cost.")
    ] = None,
    proof_wait: ProofWait = "60s",
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Run a command for each input on a few machines; {} in it stands for the input.

    {n} stands for the input's number; in --out and --out-dir too. Exits with 1 if a job has
    failed, with 125 if the broker has, or if a machine is not proven gone.
    """
    from gpubroker.cli.map import batch, map_inputs

    asked = batch(
        wanted,
        policy.policy_of(settings, choice),
        job,
        inputs=inputs,
        name=name,
        machines=machines,
        per_machine=per_machine,
        again=again,
        budget=budget,
        proof_wait=proof_wait,
    )
    return map_inputs(settings, asked, quiet=quiet, as_json=as_json)


@command(app, wanted=options.requirements, choice=policy.policy)
def offers(
    settings: "Settings",
    wanted: "tuple[Requirements, ...]",
    choice: dict[str, Any],
    budget: Budget = None,
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Also those that do not fit, and why not.")
    ] = False,
    as_json: Json = False,
) -> int:
    """What could be rented now, the best first. Rents nothing."""
    from gpubroker.cli.offers import offers

    chosen = policy.policy_of(settings, choice)
    return offers(settings, wanted, chosen, budget=budget, rejected_too=all_, as_json=as_json)


@command(app)
def ps(
    settings: "Settings",
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also those that are over.")] = False,
    as_json: Json = False,
) -> int:
    """The leases of this ledger, and when their machines were last compared with it."""
    from gpubroker.cli.ps import ps

    return ps(settings, open_only=not all_, as_json=as_json)


@command(app)
def costs(
    settings: "Settings",
    by: Annotated[
        str, typer.Option(metavar="WHAT", help="Add it up by day, provider, tag or job.")
    ] = "day",
    since: Annotated[
        str,
        typer.Option(
            metavar="WHEN", help="Rented from then on: a date, or how long ago, such as 12h or 7d."
        ),
    ] = "30d",
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Rented before then.")] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the lines as comma-separated values.")
    ] = False,
    as_json: Json = False,
) -> int:
    """What was spent, on what, and how full the limits are.

    A lease counts to the day on which it was asked for, with all that it costs.
    """
    from gpubroker.cli.costs import costs

    return costs(settings, by=by, since=since, until=until, as_csv=as_csv, as_json=as_json)


@command(app, wanted=options.requirements, said=plan_options.traffic, asked=plan_options.ground)
def plan(
    settings: "Settings",
    wanted: "tuple[Requirements, ...]",
    said: "Said",
    asked: "PlanAsked",
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw it, into this file.")
    ] = None,
    as_json: Json = False,
) -> int:
    """What each way to keep machines warm would cost for your traffic. Rents nothing.

    Replays the traffic through the rules that pools use. Without --price it asks what the best
    offer costs now.
    """
    from gpubroker.cli.plan import plan

    return plan(settings, wanted, said, asked, svg=svg, as_json=as_json)


@command(app)
def release(
    settings: "Settings",
    leases: Annotated[
        list[str] | None, typer.Argument(metavar="LEASE...", help="Ids, as `ps` shows them.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every open lease of this ledger.")] = False,
    account: Annotated[
        bool,
        typer.Option(
            "--account",
            help="With --all: also machines that carry this ledger's mark but are not in it.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    proof_wait: ProofWait = "60s",
    as_json: Json = False,
) -> int:
    """Give machines up, and wait for proof that they are gone."""
    from gpubroker.cli.release import Selection, release

    chosen = Selection(tuple(leases or ()), all=all_, account=account, yes=yes)
    return release(settings, chosen, proof_wait=proof_wait, as_json=as_json)


@command(app)
def attach(
    settings: "Settings",
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[LEASE|JOB]", help="Which one; may be left out where there is only one."
        ),
    ] = None,
    proof_wait: ProofWait = "60s",
    as_json: Json = False,
) -> int:
    """Go on with a command whose `run --on-owner-death adopt` was killed.

    Shows all that it prints, brings its outputs back, gives the machine up, and exits with its exit
    code; from here on this is as if you had run it, Ctrl-C included. One that `reap` has delivered
    already is not run again: it is told where its files are.
    """
    from gpubroker.cli.attach import attach

    return attach(settings, name, proof_wait=proof_wait, as_json=as_json)


@command(app)
def reap(
    settings: "Settings",
    loop: Annotated[
        bool,
        typer.Option("--loop/--once", help="Go on every 30 s until interrupted, or do it once."),
    ] = False,
    proof_wait: ProofWait = "60s",
    as_json: Json = False,
) -> int:
    """Find machines that nobody holds any more, and give them up.

    Jobs that are to be adopted are seen to their end first, their outputs and what they print put
    where they belong. Exits with 125 if a provider gave no answer, a machine cannot be given up, or
    a proof is missing.
    """
    from gpubroker.cli.reap import reap

    return reap(settings, loop=loop, proof_wait=proof_wait, as_json=as_json)


@command(app)
def adopt(
    settings: "Settings",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask about what is provably ours.")
    ] = False,
    unverified: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Also this machine, whose mark proves nothing; repeatable.",
        ),
    ] = None,
    proof_wait: ProofWait = "60s",
    as_json: Json = False,
) -> int:
    """After the loss of a ledger: find the machines that carry its marks, and give them up."""
    from gpubroker.cli.adopt import Consent, adopt

    consent = Consent(yes=yes, unverified=tuple(unverified or ()))
    return adopt(settings, consent, proof_wait=proof_wait, as_json=as_json)


@command(app)
def explain(
    settings: "Settings",
    lease: Annotated[
        str | None,
        typer.Argument(metavar="[LEASE]", help="A lease; the newest request if left out."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Why a machine was chosen, or why none was: offers, scores, reasons, attempts."""
    from gpubroker.cli.explain import explain

    return explain(settings, lease, as_json=as_json)


@command(app)
def providers(
    settings: "Settings",
    balance: Annotated[
        bool, typer.Option("--balance", help="Also ask what each account has left.")
    ] = False,
    as_json: Json = False,
) -> int:
    """The providers: on, off or broken, and why; and where each setting came from."""
    from gpubroker.cli.providers import providers

    return providers(settings, balances=balance, as_json=as_json)


@command(app)
def verify(settings: "Settings", as_json: Json = False) -> int:
    """Replay the ledger against its own rules. Exits with 1 if something does not hold."""
    from gpubroker.cli.verify import verify

    return verify(settings, as_json=as_json)


@command(app, sandboxed=False)
def emulate(
    settings: "Settings",  # noqa: ARG001 - every command gets them
    vendor: Annotated[
        str | None, typer.Argument(help="Whose API; those that there are, if left out.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port; a free one, if left out.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(help="Of the market, and of all that happens by chance.")
    ] = 0,
    scenario: Annotated[
        str, typer.Option(metavar="NAME", help="How it behaves; `list` shows what there is.")
    ] = "calm",
) -> int:
    """Serve a vendor's API on this machine, with real machines behind it, until interrupted."""
    from gpubroker.cli.emulate import emulate

    return emulate(vendor, port=port, seed=seed, scenario=scenario)
