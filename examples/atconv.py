"""Put attentive convolutions into a small ConvNeXt-like network, train it on digits, and look at its kernels."""

import torch
from torch import nn
from torch.nn import functional

from interplay.assets import digits
from interplay.vision.atconv import count_parameters, kernel_statistics, parameter_groups, replace_convolutions

data = digits()
order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
images, labels = data.images[order], data.labels[order]
train, test = slice(0, 1400), slice(1400, None)


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.channels = nn.Sequential(
            nn.GroupNorm(1, dim), nn.Conv2d(dim, 3 * dim, 1), nn.GELU(), nn.Conv2d(3 * dim, dim, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.channels(self.depthwise(x))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 2, 2), Block(16), Block(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


for name in ("depthwise convolutions", "attentive convolutions"):
    model = network()
    if name.startswith("attentive"):
        replace_convolutions(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.02), lr=3e-3)
    for _ in range(10):
        for batch in torch.arange(1400).split(100):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
            optimizer.step()
    wrong = (model(images[test]).argmax(1) != labels[test]).float().mean()
    print(f"{name}: {count_parameters(model)} parameters, test error {wrong:.1%}")

for path, statistics in kernel_statistics(model.eval(), images[test]).items():
    print(
        f"{path}: {statistics.routing_variance:.0%} of the kernels' variance lies between images; inhibition leaves "
        f"{statistics.dc_share:.2f} of their energy in the mean, of {statistics.raw_dc_share:.2f}"
    )
