"""A ranking of models over benchmarks by a Swiss tournament (`swiss-rounds`).

=============  ======================================================================================================
family         games
paper          Liu et al. "LLM Swiss Round: Aggregating Multi-Benchmark Performance via Competitive Swiss-System
               Dynamics", 2025, arXiv 2512.21010
official code  none found
interface      scikit-learn estimator; pandas tables in and out
input          scores (models x benchmarks): DataFrame, CSV, TSV or Parquet file, array; or a `WinTensor`
output         expected wins with standard errors, ranks, tiers, byes, survival
random         pairings, byes, eliminations, coins for ties; from a seed, whatever the number of threads
=============  ======================================================================================================

Every benchmark is a round. W(i, j, k) = 1 where model i scores more than j on benchmark k. One contest:

    S_m = 0 for all models, all in the field
    for each benchmark k, in order:
        models of the field with equal S form groups
        each group is paired at random; of an odd group one random member sits out: a bye
        the winner of each pair gets a point, the loser none; a bye is worth none
        the lowest group loses min(T_k, its size) members, drawn at random

E[S_m] is the mean over many contests. `failure_sensitivity` compares it with and without eliminations.

What the paper leaves open and what is chosen here:

- A tie is decided by a fair coin in each meeting (`ties`, `tie_margin`).
- Eliminated models keep their points and never return; not more can be eliminated than the lowest group holds.
- Models may meet again: it is another benchmark.
- The profile statistic is retention, E[S | T] / E[S | 0], at the smallest T; the slope on T is given beside it.
- Tiers are cut at the largest gaps between expected wins.

What the paper lacks: an exact solver for small fields, standard errors and the ranks that they leave open, other
policies for byes, missing scores, and the sensitivity of ranks to the order of the benchmarks. A third of all rounds
can be byes, and a model that leads alone wins nothing; look at `bye_share` before you trust a rank.
"""

from interplay.games.swiss_rounds.aggregates import baselines, bradley_terry, elo
from interplay.games.swiss_rounds.sensitivity import (
    OrderReport,
    SensitivityReport,
    failure_sensitivity,
    order_sensitivity,
    outlier_probe,
)
from interplay.games.swiss_rounds.tables import ScoreTable, easiest_first, read_table
from interplay.games.swiss_rounds.tournament import SwissRounds, largest_gap_tiers
from interplay.games.swiss_rounds.wins import WinTensor, win_tensor

__all__ = [
    "OrderReport",
    "ScoreTable",
    "SensitivityReport",
    "SwissRounds",
    "WinTensor",
    "baselines",
    "bradley_terry",
    "easiest_first",
    "elo",
    "failure_sensitivity",
    "largest_gap_tiers",
    "order_sensitivity",
    "outlier_probe",
    "read_table",
    "win_tensor",
]
