"""Is one modality of my model starved by the other, and does slowing the other help?"""

import numpy as np
import torch
from torch import nn

from interplay.assets import av_mini
from interplay.multimodal.agm import AGM, ShapleyShares
from interplay.multimodal.fusion import ConcatenationFusion, FusionNet
from interplay.multimodal.training import JointTraining

data = av_mini(train=1000, validation=0, test=500, generator=np.random.default_rng(0))


def model() -> FusionNet:
    torch.manual_seed(0)
    audio = nn.Sequential(nn.Conv1d(1, 16, 5, 2), nn.ReLU(), nn.Conv1d(16, 16, 5, 2), nn.ReLU(), nn.Flatten())
    visual = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU())
    head = nn.Sequential(nn.Linear(16 * 7 + 64, 64), nn.ReLU(), nn.Linear(64, 10))
    return FusionNet({"audio": audio, "visual": visual}, ConcatenationFusion(head))


print(f"{'training':14}{'accuracy':>10}{'audio share':>13}{'visual share':>14}")
for method in (JointTraining(model()), AGM(model(), alpha=1.5)):
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(10):
        method.start_epoch(epoch)
        for batch in torch.randperm(1000, generator=torch.Generator().manual_seed(epoch)).split(50):
            inputs, labels = data.train.take(batch)
            optimizer.zero_grad()
            method.loss(inputs, labels).backward()
            method.adjust_gradients()
            optimizer.step()
        method.end_epoch()
    with torch.no_grad():
        shares, total = ShapleyShares(method.net)(data.test.inputs)
    right = [(logits.argmax(1) == data.test.labels).float().mean() for logits in (total, *shares.values())]
    print(f"{type(method).__name__:14}{right[0]:10.1%}{right[1]:13.1%}{right[2]:14.1%}")
