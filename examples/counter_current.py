"""A digit classifier learns without a gradient that crosses a layer, and a generator of digits learns with it."""

import torch
from torch import nn

from interplay.assets import digits
from interplay.plasticity.counter_current import CounterCurrentNet, CounterCurrentObjective, alignment

data = digits()
images, labels = (data.images - 0.305) / 0.376, data.labels

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.ELU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 64), nn.ELU(), nn.Linear(64, 10)),
)
net = CounterCurrentNet.from_sequential(model, (1, 8, 8))  # the feedback network is built to mirror the model
objective = CounterCurrentObjective(net, kind="cosine", decorrelation=0.5)
optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)  # any optimiser will do

for epoch in range(5):
    for batch in torch.randperm(1300).split(50):
        optimizer.zero_grad()
        losses = objective(images[batch], labels[batch])
        losses.total.backward()  # every layer gets the gradient of its own level alone
        nn.utils.clip_grad_norm_(net.forward_parameters(), 1.0)
        nn.utils.clip_grad_norm_(net.feedback_parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(images[1300:]).argmax(1) == labels[1300:]).float().mean()
    print(
        f"epoch {epoch}: test accuracy {accuracy:.1%}, losses {[round(float(x.detach()), 2) for x in losses.per_level]}"
    )

print("alignment of the two networks, layer by layer:", [round(cosine, 2) for cosine in alignment(net).tolist()])
print("what the feedback network takes for a zero:")
for row in net.generate(torch.eye(10))[0, 0]:
    print("  " + "".join(" .:-=+*#"[int(level)] for level in (7.99 * (row - row.min()) / (row.max() - row.min()))))
