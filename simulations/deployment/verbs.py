"""The verbs ``tutela deploy bundle, pin, up, run, status, logs, down``.

Heavy packages are imported inside the verbs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.deploy_commands import pin
from common.errors import ConfigError

if TYPE_CHECKING:
    from common.config import RunConfig
    from simulations.deployment.control import Control, RunState

FolderArgument = Annotated[Path, typer.Argument(help="The deployment's folder.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to ``tutela deploy``."""
    for verb in (bundle, pin, up, run, status, logs, down):
        app.command()(verb)


def bundle(folder: FolderArgument) -> None:
    """Build this installation's bundle again; every owner has to pin it."""
    from simulations.deployment.bundle import build_bundle
    from simulations.deployment.layout import Layout, read_deployment

    _quiet_flower()
    read_deployment(folder)
    path, name = build_bundle(Layout(folder).bundle.parent)
    typer.echo(f"{path}: SHA-256 {name}. No client runs it before its owner pins it.")


def up(folder: FolderArgument) -> None:
    """Start SuperLink, executor and every client's node on this machine."""
    from simulations.deployment.laboratory import up as start

    _quiet_flower()
    start(folder, typer.echo)


def run(
    folder: FolderArgument,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file over the defaults.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value, repeatable."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The run's name; by default the deployment's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run of this name stopped.")
    ] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Also what the server app writes.")
    ] = False,
) -> None:
    """Run the federation on the pinned bundle; wait for the end of it."""
    from simulations.deployment.laboratory import submit, watch

    _quiet_flower()
    settings = _config(folder, config, assignments, name, resume=resume)
    submitted = submit(folder, settings, resume=resume)
    typer.echo(f"Run {submitted.run} named {settings.run.name} was submitted.")
    if stream:
        _stream(folder, submitted.run)
    try:
        state = watch(folder, submitted, lambda line: _tell(line, settings))
    except KeyboardInterrupt:
        typer.echo("The run goes on; `tutela deploy status` shows it.", err=True)
        raise typer.Exit(130) from None
    if state.status != "completed":
        typer.echo(f"error: {_why(state)}", err=True)
        raise typer.Exit(1)
    typer.echo(f"Complete; results in {submitted.out}.")
    typer.echo(submitted.promise)


def status(folder: FolderArgument) -> None:
    """Which processes live, which nodes are online, which runs there are."""
    from rich.console import Console
    from rich.table import Table

    from common.errors import ProtocolError
    from simulations.deployment.control import connect
    from simulations.deployment.layout import Layout, read_deployment
    from simulations.deployment.processes import living, read_processes

    _quiet_flower()
    read_deployment(folder)
    layout = Layout(folder.resolve())
    alive, table = living(layout), Table("process", "id", "state")
    for each in read_processes(layout):
        state = "lives" if each.name in alive else "ended"
        table.add_row(each.name, str(each.pid), state)
    console = Console()
    console.print(table, highlight=False)
    try:
        with connect(folder) as control:
            _print_nodes_and_runs(control, console)
    except ProtocolError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _print_nodes_and_runs(control: Control, console: Any) -> None:
    from rich.table import Table

    nodes = Table("node", "state")
    for node in control.nodes():
        nodes.add_row(node.name, node.status)
    runs = Table("run", "name", "state", "bundle", "details")
    for run in control.runs():
        facts = (str(run.run), run.name, run.status, run.bundle[:16], run.details[:80])
        runs.add_row(*facts)
    console.print(nodes, highlight=False)
    console.print(runs, highlight=False)


def logs(
    folder: FolderArgument,
    who: Annotated[
        str | None, typer.Argument(help="superlink, superexec, node-0000; else all.")
    ] = None,
    lines: Annotated[int, typer.Option("-n", min=1, help="How many lines each.")] = 20,
) -> None:
    """The end of the processes' logs."""
    from simulations.deployment.layout import Layout, read_deployment
    from simulations.deployment.processes import tail

    read_deployment(folder)
    found = {path.stem: path for path in sorted(Layout(folder).logs.glob("*.log"))}
    if who is not None and who not in found:
        known = ", ".join(found) or "none yet"
        raise ConfigError(f"logs: expected one of {known}, got {who!r}.")
    for stem, path in found.items():
        if who is None:
            typer.echo(f"== {stem}")
        if who in (None, stem):
            for line in tail(path, lines):
                typer.echo(line)


def down(folder: FolderArgument) -> None:
    """End what ``up`` started on this machine, and nothing else."""
    from simulations.deployment.layout import Layout, read_deployment
    from simulations.deployment.processes import end

    read_deployment(folder)
    ended = end(Layout(folder.resolve()))
    for name, by_itself in ended.items():
        typer.echo(f"{name} ended{'' if by_itself else ' by SIGKILL'}.")
    if not ended:
        typer.echo("Nothing was running.")


def _quiet_flower() -> None:
    """Flower reads its switches when it is imported, which is later."""
    import os

    from client.deploy.node import environment

    os.environ.update(environment())


def _config(
    folder: Path,
    path: Path | None,
    assignments: list[str] | None,
    name: str | None,
    *,
    resume: bool,
) -> RunConfig:
    from common.config import defaults, parse, parse_assignment, read_overrides
    from simulations.deployment.layout import Layout, read_deployment

    deployment, dealt = read_deployment(folder), Layout(folder).run_config
    flat = defaults()
    if dealt.is_file():
        flat |= read_overrides(dealt)
    flat["run.name"] = deployment.name
    if path is not None:
        flat |= read_overrides(path)
    flat |= dict(parse_assignment(text) for text in assignments or [])
    flat["partition.num-clients"] = deployment.num_clients
    flat["run.resume"] = resume
    if name is not None:
        flat["run.name"] = name
    return parse(flat)


def _stream(folder: Path, run: int) -> None:
    """The server app's lines, in a thread of their own."""
    import contextlib
    import threading

    import httpx

    from simulations.deployment.control import connect
    from simulations.deployment.terminal import plain

    def follow() -> None:
        # The stream may break; the run goes on, and its end is watched elsewhere.
        with contextlib.suppress(httpx.HTTPError), connect(folder) as control:
            for part in control.lines(run):
                typer.echo(plain(part), nl=False)

    threading.Thread(target=follow, daemon=True).start()


def _tell(line: dict[str, Any], config: RunConfig) -> None:
    from common.structured_logs import in_one_line

    event = line.get("event")
    if event == "round":
        seconds = sum(line["seconds"].values())
        typer.echo(
            f"Round {line['round']} of {config.training.rounds}: "
            f"{line['survivors']} of {line['num_clients']} clients, {seconds:.1f} s."
        )
    elif event == "refusal":
        typer.echo(f"Round {line['round']}: {in_one_line(line['reason'])}")
    elif event == "delivery":
        typer.echo(
            f"The student reached {line['survivors']} of {line['num_clients']} clients."
        )


def _why(state: RunState) -> str:
    details = state.details or "Flower gives no reason"
    return f"The run {state.status}: {details}. `tutela deploy logs` may say more."
