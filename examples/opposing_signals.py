"""Which samples make the loss of this run see-saw? Watch it, read the diagnosis, test it by leaving them out."""

import functools

import torch
from torch import nn
from torch.nn import functional

from interplay.assets import digits
from interplay.dynamics.opposing_signals import diagnose, drop_groups

data = digits()
images, labels = data.images.flatten(1)[:800], data.labels[:800]
images = images - images.mean(0)
# Something that a real data set may hide: a bright border on some fours and on some nines.
spoiled = torch.cat([(labels == digit).nonzero().flatten()[:20] for digit in (4, 9)])
images[spoiled] += 8.0 * (torch.arange(64) % 8 < 2)
per_sample = functools.partial(functional.cross_entropy, reduction="none")


def watch(x: torch.Tensor, y: torch.Tensor, lr: float = 0.5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr)

    def train_step(step: int) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return diagnose(model, per_sample, (x, y), train_step, 200, top=0.05, window=150, step_size=lr)


report = watch(images, labels)
print(report)
print(report.summary().round(3).to_string(), end="\n\n")
print(report.table().head(8).to_string(index=False), end="\n\n")
found = {*report.groups.index_a.tolist(), *report.groups.index_b.tolist()}
print(f"{len(found & set(spoiled.tolist()))} of the {len(found)} named samples are spoiled ones")
report.figure().savefig("opposing_signals.png")

kept = drop_groups(torch.utils.data.TensorDataset(images, labels), report.groups).indices
print("without them:", watch(images[kept], labels[kept]))
