"""A strong and a weak modality: who moves the prediction after joint training, and after the encoders' game?"""

import torch
from torch import nn

from interplay.multimodal.fusion import FusionNet, LinearFusion
from interplay.multimodal.mcr import MCR, influence_report
from interplay.multimodal.training import JointTraining, TrainingMethod
from interplay.multimodal.unimodal import MultiLossTraining

CLASSES = 5
generator = torch.Generator().manual_seed(0)
prototypes = {
    "image": 2.2 * nn.functional.normalize(torch.randn(CLASSES, 40, generator=generator)),
    "sound": 1.6 * nn.functional.normalize(torch.randn(CLASSES, 40, generator=generator)),
}


def samples(number: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    labels = torch.randint(CLASSES, (number,), generator=generator)
    noise = {name: torch.randn(number, 40, generator=generator) for name in prototypes}
    return {name: noise[name] + prototypes[name][labels] for name in prototypes}, labels


def network() -> FusionNet:
    torch.manual_seed(0)
    encoders = {name: nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()) for name in prototypes}
    return FusionNet(encoders, LinearFusion([32, 32], CLASSES), {name: nn.Linear(32, CLASSES) for name in encoders})


def fit(method: TrainingMethod, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(1)
    for _ in range(250):
        batch = torch.randint(len(labels), (64,), generator=order)
        optimizer.zero_grad()
        method.loss({name: values[batch] for name, values in inputs.items()}, labels[batch]).backward()
        method.adjust_gradients()
        optimizer.step()


train, test = samples(1000), samples(2000)
print(f"{'method':16}{'accuracy':>10}   influence on the prediction / nats")
for name, make in {
    "joint": JointTraining,
    "multi-loss": MultiLossTraining,
    "MCR, greedy": lambda net: MCR(net, influence_weight=1.0),
    "MCR, together": lambda net: MCR(net, influence_weight=1.0, k=1.0),
}.items():
    net = network()
    fit(make(net), *train)
    with torch.no_grad():
        accuracy = (net(test[0]).argmax(1) == test[1]).float().mean()
    report = influence_report(net, [test], generator=torch.Generator().manual_seed(2))
    shares = "   ".join(
        f"{modality} {row.influence:.3f} [{row.low:.3f}, {row.high:.3f}]" for modality, row in report.iterrows()
    )
    print(f"{name:16}{accuracy:10.1%}   {shares}")
