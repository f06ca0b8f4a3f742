"""An assistant around two scikit-learn models: quieter or livelier by two costs, with an audit trail, no retraining."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from interplay.agents.prism import CostGate, DualProcessGate, PairCalibrator, UserWorld, as_pass, proactive_metrics

# Streams of twelve events of simulated users: counts of tokens, those of the last event apart.
world = UserWorld.draw(generator=np.random.default_rng(0))
episodes = world.sample(12_000, generator=np.random.default_rng(1))
tokens = np.eye(13)[episodes.tokens + np.array([0, 8])].sum(axis=2)
events = np.concatenate([tokens.mean(axis=1), tokens[:, -1]], axis=1)
need, accept = episodes.y_need[:, -1], episodes.y_accept[:, -1]
train, calibration, test = slice(0, 6000), slice(6000, 9000), slice(9000, None)

# The cheap model sees the last event, the expensive one all of them.
fast = [LogisticRegression().fit(events[train, 13:], labels[train]) for labels in (need, accept)]
slow = [HistGradientBoostingClassifier(max_iter=60).fit(events[train], labels[train]) for labels in (need, accept)]


def look(rows):
    return as_pass(fast)(rows[:, 13:])


def calibrator_of(model):
    judgement = as_pass(model)(events[calibration])
    return PairCalibrator().fit(judgement.p_need, judgement.p_acc, need[calibration], accept[calibration])


print(f"{'costs':>12}{'margin':>8}{'spoken to':>11}{'false alarm':>13}{'recall':>8}{'slow calls':>12}{'cost':>8}")
for c_fa, c_fn in ((1.0, 2.0), (4.0, 2.0)):
    gate = CostGate(c_fa, c_fn)
    for delta_slow in (0.0, 0.1, 1.0):
        agent = DualProcessGate(gate, look, slow, delta_slow, calibrator_of(look), slow_calibrator=calibrator_of(slow))
        decision = agent(events[test])
        metrics = proactive_metrics(decision.speak, need[test], accept[test])
        cost = gate.realised_cost(decision.speak, need[test], accept[test]).mean()
        print(
            f"{f'{c_fa:g} and {c_fn:g}':>12}{delta_slow:8.1f}{decision.speak.mean():11.1%}{metrics.false_alarm:13.1%}"
            f"{metrics.recall:8.1%}{decision.n_slow:12d}{cost:8.3f}"
        )

print("\nWhy it spoke, or did not:")
print(decision.audit().head(3).round(3).to_string(index=False))
