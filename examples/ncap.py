"""Four weights swim at once, in bodies of any length; cut a part and see what is lost."""

import numpy as np

from interplay.embodied.ncap import NCAPSwimmer, SwimEnv, transfer

circuit = NCAPSwimmer(5)
print("weights:", ", ".join(f"{name} {weight.item():+.0f}" for name, weight in circuit.weights().items()))
print(f"\n{'links':>5}  {'circuit':<26}{'return of 300 steps':>20}")
for links in (4, 6, 10):
    body = transfer(circuit, links - 1).numpy()
    for name, brain in {
        "whole": body,
        "without oscillator": body.without("oscillator"),
        "without stretch feedback": body.without("proprioception"),
    }.items():
        env = SwimEnv(links)
        observation, _ = env.reset(seed=0)
        total = 0.0
        for step in range(300):
            angles = observation[: links - 1] / (2 * np.pi / links)
            observation, reward, *_ = env.step(brain(angles, step))
            total += reward
        print(f"{links:>5}  {name:<26}{total:>20.0f}")
