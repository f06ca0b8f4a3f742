"""The command line: parse, call, print. Heavy imports wait inside the commands: `--help` and `list` answer at once."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from interplay import __version__, catalog
from interplay.cli import organisms, studies
from interplay.cli.screen import INTERRUPTED, messages, output, refuse
from interplay.cli.steer import steer

app = typer.Typer(
    help="Re-run the claims of published systems whose parts compete, inhibit, balance, gate and steer one another.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("list")(studies.list_systems)
app.command()(studies.show)
app.command()(studies.run)
app.command()(studies.report)
app.command()(steer)
app.add_typer(organisms.app, name="organisms")

# The root of usage errors, from whichever copy of click this typer carries.
_ClickException = typer.BadParameter.__mro__[2]


def main() -> None:
    """Entry point: every expected error is one line on stderr and exit code 2."""
    # A scheduler's polite kill ends like Ctrl-C: workers stop with us, what is finished is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
    except _ClickException as error:
        refuse(error.format_message())
    except (catalog.UnknownSystemError, catalog.MissingExtraError) as error:
        refuse(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:
        messages.print("stopped; what is finished is kept, the same command goes on from here")
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.print(f"interplay {__version__}")
        raise typer.Exit


@app.callback()
def interplay(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Published systems as importable mechanisms and executable claims."""
