"""A digit classifier meets corruptions that it was not trained for, and adapts while it predicts."""

import torch
from torch import nn
from torch.nn import functional

from interplay.assets import mnist_5k
from interplay.assets.corruptions import corrupt
from interplay.plasticity.nhl import NHL, SourceOnly, Tent, evaluate_online

generator = torch.Generator().manual_seed(0)
digits = mnist_5k()
train, test = torch.randperm(len(digits), generator=generator).split([3000, 2000])

torch.manual_seed(0)
classifier = nn.Sequential(
    *(nn.Conv2d(1, 16, 5), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.ReLU()),
    *(nn.Conv2d(16, 32, 5), nn.BatchNorm2d(32), nn.MaxPool2d(2), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(512, 10)),
).to(memory_format=torch.channels_last)
optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
for _ in range(2):
    for batch in train[torch.randperm(len(train), generator=generator)].split(64):
        optimizer.zero_grad()
        functional.cross_entropy(classifier(digits.images[batch]), digits.labels[batch]).backward()
        optimizer.step()

adapters = {"source": SourceOnly(classifier), "TENT": Tent(classifier, 3e-3), "NHL": NHL(classifier, lr_mod=3e-3)}
print(f"{'online error':12}" + "".join(f"{name:>9}" for name in adapters))
for corruption in ("noise", "blur", "fog"):
    images = corrupt(digits.images[test], corruption, 5, generator)
    stream = list(zip(images.split(100), digits.labels[test].split(100), strict=True))
    row = f"{corruption:12}"
    for adapter in adapters.values():
        adapter.reset()  # a new domain starts from the trained network
        row += f"{evaluate_online(adapter, stream).error:9.1%}"
    print(row)
