"""The gallery: one HTML file that shows what the studies found, a card a system; and the Markdown table of its claims.

The file is whole: styles and scripts are inside, figures are data URIs, its content security policy refuses the
network, and whatever text the cards carry is escaped. It knows no system; who calls it says what the cards are.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from interplay.evidence.claims import Verdict
from interplay.evidence.files import write_text_atomically
from interplay.evidence.outcome import JudgedPart, Outcome

SYMBOLS: Mapping[Verdict, str] = {
    Verdict.HOLDS: "✓",
    Verdict.FAILS: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NOT_JUDGED: "-",
}
"""A verdict's mark, for readers who cannot tell its colour."""

# Filters beside the verdicts.
_NOT_RUN, _RAISED = "not run", "with errors"
# A plot leaves this share of the axis free on both sides.
_MARGIN = 0.12


@dataclass(frozen=True)
class Card:
    """What the gallery shows of one system.

    Parameters
    ----------
    slug, title, authors, year, family, paper_url, summary
        What the system is and where its paper is.
    import_line
        How to import the mechanism.
    outcome
        What its study showed; None where it has not been run.
    figure_svg
        The study's figure as SVG text, where there is one.

    Raises
    ------
    ValueError
        If the paper's address is not a web address, or the outcome is another system's.
    """

    slug: str
    title: str
    authors: str
    year: int
    family: str
    paper_url: str
    summary: str
    import_line: str
    outcome: Outcome | None = None
    figure_svg: str | None = None

    def __post_init__(self) -> None:
        if not self.paper_url.startswith(("https://", "http://")):
            raise ValueError(f"{self.slug}: paper_url must start with https://; got {self.paper_url!r}")
        if self.outcome is not None and self.outcome.slug != self.slug:
            raise ValueError(f"the card of {self.slug} carries the outcome of {self.outcome.slug}; give it its own")

    @cached_property
    def tally(self) -> dict[Verdict, int]:
        """How many claims have each verdict, in the order of `Verdict`; verdicts without claims are left out."""
        return _tally([self])

    @property
    def states(self) -> list[str]:
        """What the verdict filter finds the card by."""
        if self.outcome is None:
            return [_NOT_RUN]
        return [*(verdict.value for verdict in self.tally), *([_RAISED] if self.outcome.failures else [])]

    @property
    def search_text(self) -> str:
        """What the search finds the card by."""
        words = [self.slug, self.title, self.authors, str(self.year), self.family, self.summary, self.import_line]
        claims = self.outcome.claims if self.outcome else []
        return " ".join([*words, *(f"{claim.sentence} {claim.paper}" for claim in claims)]).lower()

    @property
    def figure_uri(self) -> str | None:
        """The figure as an image: nothing in it can run, and its ids cannot clash with another's."""
        if self.figure_svg is None:
            return None
        return f"data:image/svg+xml;base64,{base64.b64encode(self.figure_svg.encode()).decode()}"


@dataclass(frozen=True)
class IntervalPlot:
    """Where a figure, its interval and the region where the claim is true lie on one axis, in per cent of its length.

    Parameters
    ----------
    effect
        Position of the figure.
    interval
        Start and length of the interval.
    regions
        Starts and lengths of where the claim is true.
    """

    effect: float
    interval: tuple[float, float]
    regions: tuple[tuple[float, float], ...]


def write_gallery(cards: Iterable[Card], path: Path) -> None:
    """Write the gallery.

    Parameters
    ----------
    cards
        In the order to be shown.
    path
        The HTML file; its folder is made, an older file is replaced in one step.

    Raises
    ------
    ValueError
        If two cards have one slug.
    """
    shown = list(cards)
    if repeated := [slug for slug, count in Counter(card.slug for card in shown).items() if count > 1]:
        raise ValueError(f"a slug names one card; {repeated[0]!r} names several")
    style, script = (
        files("interplay.evidence").joinpath(f"gallery.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    template = _templates().get_template("gallery.html.j2")
    page = template.render(
        cards=shown,
        families=Counter(card.family for card in shown),
        states=_count_states(shown),
        tally=_tally(shown),
        newest=max((card.outcome.finished for card in shown if card.outcome), default=None),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, page)


def claims_table(outcome: Outcome) -> str:
    """The claims of an outcome as a Markdown table: verdict, claim, the paper's figure, the measured one, threshold.

    A claim with several parts takes a row a part; its first cells stand in the first.
    """
    lines = [
        "| Verdict | Claim | The paper reports | Measured here (95 % interval) | Holds when |",
        "| --- | --- | --- | --- | --- |",
    ]
    for claim in outcome.claims:
        verdict = f"{SYMBOLS[claim.verdict]} **{claim.verdict}**"
        label = f" ({claim.label})" if claim.label else ""
        lead = [verdict, in_markdown(claim.sentence) + label, in_markdown(claim.paper)]
        for part in claim.parts:
            mark = f"{SYMBOLS[part.verdict]} " if len(claim.parts) > 1 else ""
            figure = in_markdown(part.measured)
            how = in_markdown(f"{part.description}; {how_measured(part)}")
            lines.append(
                "| "
                + " | ".join([*lead, f"{mark}{figure}<br><small>{how}</small>", in_markdown(part.threshold)])
                + " |"
            )
            lead = ["", "", ""]
    return "\n".join(lines) + "\n"


def how_measured(part: JudgedPart) -> str:
    """How the figure was reduced and over how many units, or why it is undefined."""
    reduced = f"{part.kind}, n = {part.units}"
    return f"{reduced}: {part.reason}" if part.reason else reduced


def interval_plot(part: JudgedPart) -> IntervalPlot | None:
    """The plot of a part; None where the figure or its interval is undefined."""
    figures = [part.effect, part.low, part.high]
    if not all(map(math.isfinite, figures)):
        return None
    bounds = [bound for region in part.regions for bound in region if math.isfinite(bound)]
    points = figures + bounds
    # A ratio of 1/2 is as far from one as a ratio of 2.
    scale = math.log if "ratio" in part.kind and min(points) > 0 else float
    start, end = scale(min(points)), scale(max(points))
    length = end - start or abs(start) or 1.0
    start, end = start - _MARGIN * length, end + _MARGIN * length

    def position(value: float) -> float:
        if math.isinf(value):
            return 0.0 if value < 0 else 100.0
        return round(100 * (scale(value) - start) / (end - start), 2)

    def span(low: float, high: float) -> tuple[float, float]:
        return position(low), round(position(high) - position(low), 2)

    return IntervalPlot(
        effect=position(part.effect),
        interval=span(part.low, part.high),
        regions=tuple(span(low, high) for low, high in part.regions),
    )


def _tally(cards: Sequence[Card]) -> dict[Verdict, int]:
    counts = Counter(claim.verdict for card in cards if card.outcome for claim in card.outcome.claims)
    return {verdict: counts[verdict] for verdict in Verdict if counts[verdict]}


def _count_states(cards: Sequence[Card]) -> dict[str, int]:
    counts = Counter(state for card in cards for state in card.states)
    return {
        state: counts[state] for state in [*(verdict.value for verdict in Verdict), _RAISED, _NOT_RUN] if counts[state]
    }


def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("interplay", "evidence"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(symbols=SYMBOLS, interval_plot=interval_plot, how_measured=how_measured)
    environment.filters.update(duration=_duration, figures=_with_minus_signs)
    return environment


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _with_minus_signs(figures: str) -> str:
    return figures.replace("-", "\N{MINUS SIGN}")


def in_markdown(text: str) -> str:
    """Text that means itself in Markdown: on one line, its special characters as entities."""
    joined = " ".join(text.split())
    return re.sub(r"[&<>\\`*_{}\[\]|~#$]", lambda character: f"&#{ord(character[0])};", joined)
