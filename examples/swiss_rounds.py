"""Rank models over benchmarks without weights, and see what the ranking is made of."""

from interplay.assets.estimator_scores import estimator_scores
from interplay.games.swiss_rounds import SwissRounds, baselines, easiest_first, failure_sensitivity, order_sensitivity

table = estimator_scores()  # a DataFrame, models x benchmarks; the path of a CSV or Parquet file would do as well
rounds = SwissRounds(n_sims=100_000, order=easiest_first(table), random_state=0)
ranking = rounds.rank(table)
print(ranking.head(8).round(3).to_string(index=False))
print("\n".join(rounds.notes_))  # ranks within the error, byes
print(baselines(table)["mean"].sort_values(ascending=False).head(3))

profile = failure_sensitivity(table, (0, 1), orders=20, n_sims=10_000, random_state=0).profile()
print(profile.sort_values("residual").round(3).to_string(index=False))  # who suffers from elimination
print(order_sensitivity(table, 30, n_sims=5_000).summary().head(5))  # what the order of benchmarks does
