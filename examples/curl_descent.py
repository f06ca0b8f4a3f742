"""How much inverted plasticity does a digit classifier survive, and in which layer?"""

import torch
from torch import nn
from torch.nn import functional

from interplay.assets import digits
from interplay.dynamics.curl_descent import CurlDescent, curl_fraction, flip_plan

data = digits()
order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
images, labels = data.images[order].flatten(1), data.labels[order]
train, test = slice(0, 1400), slice(1400, None)


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 10))


print(f"{'flipped senders':24}{'curl':>8}{'test error':>12}")
for name, flips in {
    "none": {},
    "a tenth of the pixels": {"0": 0.1},
    "a third of the pixels": {"0": 0.33},
    "a tenth of the hidden": {"2": 0.1},
    "a third of the hidden": {"2": 0.33},
}.items():
    generator = torch.Generator().manual_seed(1)
    model = classifier()
    signs = flip_plan(model, flips, generator=generator)
    batch = (images[:200], labels[:200])
    curl = curl_fraction(model, functional.cross_entropy, batch, signs, generator=generator)
    optimizer = CurlDescent(model.parameters(), lr=0.5, signs=signs, renorm="init_frobenius")
    for _ in range(300):
        optimizer.zero_grad()
        functional.cross_entropy(model(images[train]), labels[train]).backward()
        optimizer.step()
    wrong = (model(images[test]).argmax(1) != labels[test]).float().mean()
    print(f"{name:24}{curl:8.2f}{wrong:12.1%}")
