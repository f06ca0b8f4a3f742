"""Swap batch normalisation for lateral inhibition in a spiking network, and train it on digits."""

import torch
from torch import nn
from torch.nn import functional

from interplay.assets import mnist_5k
from interplay.primitives.neurons import LIF, MultiStep
from interplay.spiking.ei_snn import constrain, convert_bn_to_ei

generator = torch.Generator().manual_seed(0)
digits = mnist_5k()
train, test = torch.randperm(len(digits), generator=generator).split([2500, 2500])
images = digits.images.flatten(1)  # pixels in [0, 1]: not standardised, since excitation is not negative
time_steps = 4

torch.manual_seed(0)
with_batch_norm = nn.Sequential(
    *(MultiStep(nn.Linear(784, 128)), MultiStep(nn.BatchNorm1d(128)), MultiStep(LIF())),
    *(MultiStep(nn.Linear(128, 128)), MultiStep(nn.BatchNorm1d(128)), MultiStep(LIF())),
    *(MultiStep(nn.Linear(128, 128)), MultiStep(nn.BatchNorm1d(128)), MultiStep(LIF())),
    MultiStep(nn.Linear(128, 10)),
)
# Networks of SpikingJelly's layers, or any other PyTorch model, are converted by the same call.
example = images[train[:100]].expand(time_steps, -1, -1)
with_inhibition = convert_bn_to_ei(with_batch_norm, example, generator=generator)


def learn(network: nn.Module, rate: float, epochs: int = 3) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    if network is with_inhibition:
        constrain(optimizer, network)  # weights and gains stay non-negative
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * 25)
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train), generator=generator)].split(100):
            logits = network(images[batch].expand(time_steps, -1, -1)).mean(0)
            optimizer.zero_grad()
            functional.cross_entropy(logits, digits.labels[batch]).backward()
            optimizer.step()
            schedule.step()


def error(network: nn.Module, batch_size: int) -> float:
    """Error on the test images, in training mode, as when a network keeps learning from a stream."""
    wrong = 0
    with torch.no_grad():
        for batch in test[:1000].split(batch_size):
            logits = network(images[batch].expand(time_steps, -1, -1)).mean(0)
            wrong += int((logits.argmax(1) != digits.labels[batch]).sum())
    return wrong / 1000


print(f"{'error':22}{'batches of 100':>16}{'batches of 2':>16}")
for name, network, rate in (("batch normalisation", with_batch_norm, 0.1), ("inhibition", with_inhibition, 0.02)):
    learn(network, rate)
    print(f"{name:22}{error(network, 100):16.1%}{error(network, 2):16.1%}")
