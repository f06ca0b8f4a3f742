"""`interplay steer`: fit a steering of a local language model on two files of prompts, look at it, keep it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.columns import Columns
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from interplay.catalog import MissingExtraError
from interplay.cli.screen import ProgressBar, messages, output, refuse

if TYPE_CHECKING:
    import pandas as pd

    from interplay.steering import Steering

_GEMMA = "gemma-3-270m"


def steer(
    model: Annotated[str, typer.Argument(help=f"Folder of a Hugging Face model, a GGUF file, or {_GEMMA}.")],
    positive: Annotated[
        Path | None, typer.Option(help="Prompts that show the behaviour, one a line.", show_default=False)
    ] = None,
    negative: Annotated[Path | None, typer.Option(help="Prompts that do not, one a line.", show_default=False)] = None,
    load: Annotated[
        Path | None, typer.Option(help="A steering that was kept, instead of the two files.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option(help="How to steer.")] = "caa",
    strengths: Annotated[str, typer.Option(help="Strengths to show, separated by commas; 0 is unsteered.")] = "0,1,2,4",
    prompts: Annotated[
        Path | None, typer.Option(help="Continue these prompts, one a line, and show a table.", show_default=False)
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Type prompts and see both answers.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Regular expression that the steered text should match.", show_default=False)
    ] = None,
    tokens: Annotated[int, typer.Option(help="Length of a continuation.", min=1)] = 40,
    out: Annotated[Path | None, typer.Option(help="File for the steering (.safetensors).", show_default=False)] = None,
    template: Annotated[bool, typer.Option(help="Use the tokenizer's chat template if it has one.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table for machines.")] = False,
) -> None:
    """Steer a local language model: fit on contrasting prompts, compare strengths side by side, keep one file."""
    try:
        wanted = _strengths(strengths)
        if (load is None) == (positive is None and negative is None) or (positive is None) != (negative is None):
            refuse("pass --positive and --negative, one file of prompts each, or --load with a steering that was kept")
        texts = {name: _lines(path) for name, path in (("positive", positive), ("negative", negative)) if path}
        asked = _lines(prompts) if prompts else []
        from interplay.steering import METHODS, load_steering
        from interplay.steering.comparison import matcher

        if method not in METHODS:
            refuse(f"--method must be one of {', '.join(sorted(METHODS))}; got {method!r}")
        found = matcher(target) if target is not None else None
        loaded = _load(model)
        formatted = _format(loaded.tokenizer) if template else (lambda text: text)
        if load is not None:
            steering = load_steering(load)
            steering.check_fits(loaded.model)
        else:
            steering = _fit(
                method, loaded, *([formatted(text) for text in texts[name]] for name in ("positive", "negative"))
            )
        if out is not None:
            steering.save(out)
            messages.print(f"kept in {escape(str(out))}", soft_wrap=True)
        if asked:
            _show_table(loaded, steering, asked, formatted, wanted, tokens, found, as_json)
        if chat:
            _chat(loaded, steering, formatted, wanted[-1], tokens)
    except MissingExtraError:
        raise
    except (ImportError, RuntimeError, ValueError, TypeError, OSError) as error:
        refuse(str(error))


def _strengths(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        refuse(f"--strengths must be numbers separated by commas, such as 0,1,2; got {text!r}")


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        refuse(f"{path} holds no prompt; write one a line")
    return lines


def _load(model: str) -> Any:
    from interplay.assets import gemma_3_270m, load_language_model

    if model == _GEMMA and not Path(model).exists():
        return gemma_3_270m()
    return load_language_model(model)


def _format(tokenizer: Any) -> Any:
    if not getattr(tokenizer, "chat_template", None):
        return lambda text: text
    return lambda text: tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )


def _fit(method: str, loaded: Any, positive: Sequence[str], negative: Sequence[str]) -> Steering:
    from interplay.steering import find_method

    messages.print(f"fitting {method} on {len(positive)} + {len(negative)} prompts ...")
    return find_method(method).fit(loaded.model, loaded.tokenizer, positive, negative)


def _show_table(
    loaded: Any,
    steering: Steering,
    asked: Sequence[str],
    formatted: Any,
    strengths: Sequence[float],
    tokens: int,
    found: Any,
    as_json: bool,
) -> None:
    from interplay.steering.comparison import compare, summarise

    with ProgressBar("continuations", quiet=as_json) as bar:
        table = compare(
            loaded.model,
            loaded.tokenizer,
            steering,
            [formatted(text) for text in asked],
            strengths,
            max_new_tokens=tokens,
            target=found,
            progress=lambda done, total: bar.show("generating", done, total),
        )
    table["prompt"] = [text for text in asked for _ in strengths]
    if as_json:
        sys.stdout.write(table.to_json(orient="records", indent=1) + "\n")
        return
    for prompt, rows in table.groupby("prompt", sort=False):
        output.print(f"\n[bold]{escape(str(prompt))}[/]")
        for strength, text in zip(rows["strength"], rows["text"], strict=True):
            output.print(f"  [dim]{strength:>6g}[/]  {escape(text.strip())}")
    output.print(_summary(summarise(table)))


def _summary(summary: pd.DataFrame) -> Table:
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in summary:
        shown.add_column(str(column), justify="right")
    for row in summary.itertuples(index=False):
        shown.add_row(*(f"{value:.3g}" for value in row))
    return shown


def _chat(loaded: Any, steering: Steering, formatted: Any, strength: float, tokens: int) -> None:
    """Both answers to what is typed; `/strength 2` turns the dial, an empty line or Ctrl-D ends."""
    from interplay.steering.comparison import compare

    messages.print("type a prompt; /strength NUMBER turns the dial, an empty line ends")
    while (line := _typed(f"[{strength:g}] ")) is not None:
        if line.startswith("/"):
            command, _, value = line.partition(" ")
            try:
                if command != "/strength":
                    raise ValueError
                strength = float(value)
            except ValueError:
                messages.print(f"unknown command {escape(line)}; there is /strength NUMBER")
            continue
        table = compare(
            loaded.model, loaded.tokenizer, steering, [formatted(line)], [0.0, strength], max_new_tokens=tokens
        )
        panels = [
            Panel(escape(row.text.strip()), title=f"strength {row.strength:g} · perplexity {row.perplexity:.3g}")
            for row in table.itertuples()
        ]
        output.print(Columns(panels, equal=True, expand=True))


def _typed(sign: str) -> str | None:
    try:
        return input(sign).strip() or None
    except EOFError:
        return None
