"""The options of commands that ask for a machine, in the words of `Requirements` and `Job`."""

# Annotations are read when the commands are made, so they must be values and not text, except
# those of what is imported at first use.
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from gpubroker.model.jobs import Job
    from gpubroker.model.requirements import Requirements

_MACHINE: Final = "The machine"
_JOB: Final = "The job"

Text = str | None
Texts = list[str] | None


def requirements(
    gpu: Annotated[
        Texts,
        typer.Option(
            metavar="MODEL",
            help="GPU model, such as 'RTX 4090' or A100; repeat it to accept any of several.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    count: Annotated[
        Text,
        typer.Option(metavar="N", help="How many GPUs: 2 or 1..4.", rich_help_panel=_MACHINE),
    ] = None,
    vram: Annotated[
        Text,
        typer.Option(
            metavar="GB", help="Memory on each GPU: 24, 24GB.. or 24..80.", rich_help_panel=_MACHINE
        ),
    ] = None,
    compute_capability: Annotated[
        Text,
        typer.Option(
            metavar="VERSION",
            help="NVIDIA's compute capability, 8.0 or newer.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    cuda: Annotated[
        Text,
        typer.Option(
            metavar="VERSION",
            help="CUDA version that the driver must support, such as 12.4.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    cpus: Annotated[
        Text,
        typer.Option(metavar="N", help="Logical processors, at least.", rich_help_panel=_MACHINE),
    ] = None,
    ram: Annotated[
        Text,
        typer.Option(metavar="GB", help="Main memory, at least.", rich_help_panel=_MACHINE),
    ] = None,
    disk: Annotated[
        Text,
        typer.Option(metavar="GB", help="Disk to rent.", rich_help_panel=_MACHINE),
    ] = None,
    region: Annotated[
        Texts,
        typer.Option(
            metavar="NAME",
            help="Two-letter country or the provider's region; repeatable.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    reliability: Annotated[
        Text,
        typer.Option(
            metavar="SCORE",
            help="The provider's reliability score, 0 to 1, at least.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    trust: Annotated[
        str,
        typer.Option(
            metavar="TIER",
            help="Least trusted owner accepted: own, datacenter, verified or unverified.",
            rich_help_panel=_MACHINE,
        ),
    ] = "verified",
    download: Annotated[
        Text,
        typer.Option(
            metavar="MBIT/S", help="From the internet, at least.", rich_help_panel=_MACHINE
        ),
    ] = None,
    upload: Annotated[
        Text,
        typer.Option(metavar="MBIT/S", help="To the internet, at least.", rich_help_panel=_MACHINE),
    ] = None,
    spot: Annotated[
        bool,
        typer.Option(
            "--spot/--no-spot",
            help="Only machines that may be interrupted, or none of them.",
            rich_help_panel=_MACHINE,
        ),
    ] = False,
    any_spot: Annotated[
        bool,
        typer.Option(
            "--any-spot", help="Interruptible or not, either will do.", rich_help_panel=_MACHINE
        ),
    ] = False,
    provider: Annotated[
        Texts,
        typer.Option(
            metavar="NAME", help="Only from this provider; repeatable.", rich_help_panel=_MACHINE
        ),
    ] = None,
    exclude: Annotated[
        Texts,
        typer.Option(
            metavar="NAME", help="Never from this provider; repeatable.", rich_help_panel=_MACHINE
        ),
    ] = None,
    max_price: Annotated[
        Text,
        typer.Option(
            metavar="USD",
            help="Most to pay per hour, for the whole machine with its disk.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    image: Annotated[
        Text,
        typer.Option(metavar="NAME", help="Container image to start.", rich_help_panel=_MACHINE),
    ] = None,
    port: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="TCP port that must be reachable; repeatable.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    driver: Annotated[
        Text,
        typer.Option(
            metavar="VERSION",
            help="Oldest NVIDIA driver accepted, such as 550.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    static_ip: Annotated[
        bool,
        typer.Option(
            "--static-ip", help="Only addresses that stay the same.", rich_help_panel=_MACHINE
        ),
    ] = False,
    setup: Annotated[
        Text,
        typer.Option(
            metavar="SCRIPT",
            help="Shell script to run before the command; @FILE reads it from a file.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    setup_timeout: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How long that may take: seconds, 90s, 10m, 2h.",
            rich_help_panel=_MACHINE,
        ),
    ] = "15m",
    or_: Annotated[
        Texts,
        typer.Option(
            "--or",
            metavar="WORDS",
            help="What to take where there is no such machine, in the words of these options: "
            "'gpu=A100 count=2'. What it leaves out stays as it is, but an alternative that names "
            "cards (gpu, count, vram, compute-capability) describes them anew. Repeatable.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
) -> "tuple[Requirements, ...]":
    """The machine that the options ask for, and what will do instead, in order."""
    from gpubroker.cli.alternatives import choices

    first = {
        "gpu": gpu,
        "count": count,
        "vram": vram,
        "compute-capability": compute_capability,
        "cuda": cuda,
        "cpus": cpus,
        "ram": ram,
        "disk": disk,
        "region": region,
        "reliability": reliability,
        "trust": trust,
        "download": download,
        "upload": upload,
        "spot": None if any_spot else spot,
        "provider": provider,
        "exclude": exclude,
        "max-price": max_price,
        "image": image,
        "port": port,
        "driver": driver,
        "static-ip": static_ip,
        "setup": setup,
        "setup-timeout": setup_timeout,
    }
    return choices(first, or_ or ())


def job(
    words: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help="The command and its words, passed on exactly."),
    ],
    in_: Annotated[
        Texts,
        typer.Option(
            "--in",
            metavar="FILE[:NAME]",
            help="File or folder to place in the job's folder, under its own or another name.",
            rich_help_panel=_JOB,
        ),
    ] = None,
    out: Annotated[
        Texts,
        typer.Option(
            metavar="PATTERN",
            help="Output to bring back, such as model.pt or '**/*.png'; repeatable.",
            rich_help_panel=_JOB,
        ),
    ] = None,
    out_dir: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where outputs are put.", rich_help_panel=_JOB),
    ] = Path(),
    env: Annotated[
        Texts,
        typer.Option(
            metavar="NAME=VALUE", help="Environment of the command.", rich_help_panel=_JOB
        ),
    ] = None,
    secret: Annotated[
        Texts,
        typer.Option(
            metavar="NAME",
            help="Pass on this variable of your environment; its value is never written down.",
            rich_help_panel=_JOB,
        ),
    ] = None,
    timeout: Annotated[
        Text,
        typer.Option(
            metavar="TIME",
            help="End the command after this long: seconds, 90s, 10m, 2h.",
            rich_help_panel=_JOB,
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="How often to start again elsewhere if the machine is lost.",
            rich_help_panel=_JOB,
        ),
    ] = 0,
    tag: Annotated[
        Texts,
        typer.Option(metavar="NAME", help="Name to find it and its cost by.", rich_help_panel=_JOB),
    ] = None,
) -> "Job":
    """The job that the options describe."""
    from gpubroker.model.durations import parse_seconds
    from gpubroker.model.jobs import Job

    return Job(
        words,
        files=files_of(in_ or ()),
        outputs=out or (),
        output_dir=out_dir,
        env=pairs_of(env or ()),
        secrets=_secrets(secret or ()),
        timeout=None if timeout is None else parse_seconds("timeout", timeout),
        retries=retries,
        tags=tag or (),
    )


def files_of(given: "list[str] | tuple[()]") -> dict[str, Path]:
    """Files by their names there. A file that exists under the whole text needs no other name."""
    from gpubroker.errors import InvalidValue

    files: dict[str, Path] = {}
    for text in given:
        path, _, name = (text, "", "") if Path(text).exists() else text.rpartition(":")
        if not path or not Path(path).exists():
            raise InvalidValue("in", text, "there is no such file")
        name = name or Path(path).resolve().name
        if name in files:
            raise InvalidValue("in", text, f"two files would be called {name}")
        files[name] = Path(path)
    return files


def pairs_of(given: "list[str] | tuple[()]") -> dict[str, str]:
    from gpubroker.errors import InvalidValue

    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidValue("env", text, "must be NAME=VALUE")
        pairs[name] = value
    return pairs


def _secrets(names: "list[str] | tuple[()]") -> dict[str, str]:
    from gpubroker.errors import InvalidValue

    for name in names:
        if name not in os.environ:
            raise InvalidValue("secret", name, "your environment has no such variable")
    return {name: os.environ[name] for name in names}
