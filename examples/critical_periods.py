"""When may one of two encoders be out of order during training? A digit classifier in which two compete."""

import torch
from torch import nn
from torch.nn import functional

from interplay.assets import digits
from interplay.dynamics.critical_periods import critical_window, deficit_hooks, sensitivity

data = digits()
order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
images, labels = data.images[order].flatten(1), data.labels[order]
train, test = slice(0, 1200), slice(1200, None)
STEPS = 250


class TwoEncoders(nn.Module):
    """Two deep encoders of the same image whose outputs add, so that they compete for what there is to learn."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)) for _ in range(2))

    def forward(self, x):
        return self.left(x) + self.right(x)


def accuracy_of_the_right_encoder(schedule, seed):
    torch.manual_seed(seed)
    model = TwoEncoders()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)

    def learn():
        for _ in range(STEPS):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[train]), labels[train]).backward()
            optimizer.step()

    if schedule is None:
        learn()
    else:
        with deficit_hooks(model, "right", schedule, optimizer=optimizer, steps=STEPS):
            learn()
    return (model.right(images[test]).argmax(1) == labels[test]).float().mean().item()


def train_all(schedules, seeds):
    return [accuracy_of_the_right_encoder(*pair) for pair in zip(schedules, seeds, strict=True)]


table = sensitivity(train_all, onsets=[0, 20, 60, 150], lengths=[60], seeds=range(6), steps=STEPS)
print(table[["onset", "length", "mean", "difference", "low", "high"]].round(3).to_string(index=False))
print(critical_window(table).round(1).to_string(index=False))
