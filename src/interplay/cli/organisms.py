"""The commands about organisms: the small language models that the project trains itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from interplay.catalog import MissingExtraError
from interplay.cli.screen import ProgressBar, output, refuse

app = typer.Typer(
    help="Small language models of known ground truth: list them, build a seed, measure its gates again.",
    no_args_is_help=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="The organism.")]
Seed = Annotated[int, typer.Option(help="Its seed.", min=0)]
Variant = Annotated[str, typer.Option(help="Its variant.")]


@app.command("list")
def list_organisms() -> None:
    """The organisms, their variants, and the seeds that load at once."""
    with _expected_errors():
        from interplay.assets.organisms import available

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("organism", "variant", "shipped seeds", "built seeds", "one build", "what it is"):
            table.add_column(column, overflow="fold")
        for info in available():
            shipped, built = (", ".join(map(str, seeds)) or "-" for seeds in (info.shipped_seeds, info.built_seeds))
            minutes = f"{info.build_minutes:g} min"
            table.add_row(info.name, info.variant, shipped, built, minutes, escape(info.description))
        output.print(table)


@app.command()
def build(
    name: Name,
    seed: Seed = 0,
    variant: Variant = "main",
    out: Annotated[Path | None, typer.Option(help="Folder for the result; the cache if not given.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the training.", min=1)] = 2,
    budget: Annotated[
        float, typer.Option(help="Seconds of processor time per thread after which the build gives up.", min=1)
    ] = 600,
) -> None:
    """Train one seed of an organism; a build that was stopped goes on from its last evaluation."""
    with _expected_errors():
        from interplay.assets import organisms

        with ProgressBar("steps", every=10) as bar:
            card = organisms.build(
                name,
                seed,
                variant,
                out_dir=out,
                threads=threads,
                budget_s=budget,
                progress=lambda now: bar.show(f"{name} {variant} seed {seed}", now.step, now.steps),
            )
        output.print(str(organisms.GateReport(f"{name} {variant} seed {seed}", card.gates)), markup=False)


@app.command()
def verify(name: Name, seed: Seed = 0, variant: Variant = "main") -> None:
    """Measure every gate of an organism (a name, or a folder) again; exit code 1 if one fails."""
    with _expected_errors():
        from interplay.assets import organisms

        report = organisms.verify(name, seed, variant)
    output.print(str(report), markup=False)
    if not report.passed:
        raise typer.Exit(1)


@contextmanager
def _expected_errors() -> Iterator[None]:
    """Turn what the organisms refuse into one line and exit code 2."""
    try:
        yield
    except MissingExtraError:
        raise
    except KeyError as error:
        refuse(str(error.args[0]))
    except (LookupError, ImportError, RuntimeError, ValueError, OSError) as error:
        refuse(str(error))
