"""Two spiking networks, one in the manner of snnTorch and one in that of SpikingJelly, with UltraLIF in them."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from interplay.assets.event_counts import event_counts
from interplay.primitives.neurons import MultiStep
from interplay.spiking.ultralif import UltraDLIF, UltraLIF, hard_spikes, soft_lif


class StepByStep(nn.Module):
    """A loop over time that hands the state on, as with snnTorch's Leaky: `spikes, state = neuron(current, state)`."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.first, self.neuron, self.readout = nn.Linear(140, 64), neuron, nn.Linear(64, 20)

    def forward(self, counts: Tensor) -> Tensor:
        state, logits = None, []
        for now in counts:
            spikes, state = self.neuron(self.first(now), state)  # snn.Leaky(beta=0.9) stood here
            logits.append(self.readout(spikes))
        return torch.stack(logits).mean(0)


class MeanOverTime(nn.Module):
    def forward(self, sequence: Tensor) -> Tensor:
        return sequence.mean(0)


def sequential(neuron: nn.Module) -> nn.Module:
    """Layers over (time, batch, channel), as SpikingJelly's in multi-step mode."""
    return nn.Sequential(
        MultiStep(nn.Linear(140, 64)),
        MultiStep(neuron),  # neuron.LIFNode(step_mode="m") stood here
        MultiStep(nn.Linear(64, 20)),
        MeanOverTime(),
    )


recordings = event_counts(4000, generator=np.random.default_rng(0))
counts = recordings.counts.sum(1, keepdim=True).movedim(1, 0)  # (1, sample, channel): one time step
train, test = torch.arange(4000).split([3000, 1000])

print(f"{'':32}{'graded':>8}{'hard':>8}")
for name, make in {
    "LIF, step by step": lambda: StepByStep(soft_lif(smooth=False)),
    "UltraLIF, step by step": lambda: StepByStep(UltraLIF()),
    "UltraLIF with decay, Sequential": lambda: sequential(UltraLIF(learn_decay=True)),
    "UltraDLIF, Sequential": lambda: sequential(UltraDLIF(64)),
}.items():
    torch.manual_seed(0)
    network = make()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(15):
        for batch in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(counts[:, batch]), recordings.labels[batch]).backward()
            optimizer.step()
    row = f"{name:32}"
    with torch.inference_mode():
        row += f"{(network(counts[:, test]).argmax(1) == recordings.labels[test]).float().mean():8.1%}"
        with hard_spikes(network):  # zeros and ones, as on a chip
            row += f"{(network(counts[:, test]).argmax(1) == recordings.labels[test]).float().mean():8.1%}"
    print(row)
