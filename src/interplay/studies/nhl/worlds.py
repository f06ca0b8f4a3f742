"""The source networks of the study and the streams of images that they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from interplay.assets import mnist_5k
from interplay.assets.corruptions import CORRUPTIONS, corrupt
from interplay.assets.image_folders import ImageFolder
from interplay.primitives.randomness import generator_of, initialised_from

Batches = Iterable[tuple[Tensor, Tensor]]


class World(NamedTuple):
    """A source network and the streams that it meets: stream(corruption or "clean", severity, batch size, by class)."""

    network: nn.Module
    stream: Callable[[str, int, int, bool], Batches]


def convolutional_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5),
        nn.BatchNorm2d(16),
        nn.MaxPool2d(2),  # ahead of the ReLU, with which it commutes: four times fewer to rectify
        nn.ReLU(),
        nn.Conv2d(16, 32, 5),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    ).to(memory_format=torch.channels_last)  # three times as fast on a CPU


class VisionTransformer(nn.Module):
    """Sixteen patches of 7 x 7 pixels through two blocks; no batch normalisation anywhere."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, stride=7)
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        block = partial(nn.TransformerEncoderLayer, width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.Sequential(block(), block())
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 10"]:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(1))


TRAINING, SIGNS, CORRUPTING, ARRIVING = range(4)


def digit_world(
    seed: int,
    build: Callable[[], nn.Module],
    *,
    epochs: int,
    training_images: int,
    stream_images: int,
    device: torch.device,
) -> World:
    """Train a network on clean digits; streams are made of digits that it has not seen."""
    digits = mnist_5k()
    generator = generator_of(seed, TRAINING)
    order = torch.randperm(len(digits), generator=generator)
    train, stream = order[:training_images], order[training_images : training_images + stream_images]
    with initialised_from(generator):
        network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train), generator=generator)].split(64):
            loss = functional.cross_entropy(network(digits.images[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    network.to(device)

    @cache
    def corrupted(item: str, severity: int) -> Tensor:
        images = digits.images[stream]
        if item == "clean":
            return images
        if item not in CORRUPTIONS:
            known = ", ".join(CORRUPTIONS)
            raise ValueError(f"{item!r} is none of {known}; set images and checkpoint to use folders of images")
        return corrupt(images, item, severity, generator_of(seed, CORRUPTING, list(CORRUPTIONS).index(item), severity))

    def batches(item: str, severity: int, batch_size: int, by_class: bool) -> Batches:
        images, labels = corrupted(item, severity), digits.labels[stream]
        arrival = labels.argsort(stable=True) if by_class else torch.arange(len(labels))
        return [(images[batch].to(device), labels[batch].to(device)) for batch in arrival.split(batch_size)]

    return World(network, batches)


def folder_world(seed: int, *, checkpoint: Path | None, images: Path | None, device: torch.device) -> World:
    """A pretrained classifier and folders of images in the layout of ImageNet-C."""
    if checkpoint is None or images is None:
        raise ValueError("images and checkpoint go together: --set images=FOLDER --set checkpoint=FOLDER")
    transformers = import_module("transformers")
    local = {"local_files_only": True, "trust_remote_code": False}
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint, **local)
    network = transformers.AutoModelForImageClassification.from_pretrained(checkpoint, use_safetensors=True, **local)

    def prepare(image: Image.Image) -> Tensor:
        return processor(image, return_tensors="pt")["pixel_values"][0]

    def batches(item: str, severity: int, batch_size: int, by_class: bool) -> Batches:
        root = images / item if item == "clean" else images / item / str(severity)
        shuffle = None if by_class else generator_of(seed, ARRIVING)
        folder = ImageFolder(root, prepare, batch_size=batch_size, shuffle=shuffle)
        return ((inputs.to(device), labels.to(device)) for inputs, labels in folder)

    return World(network.to(device).eval(), batches)


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one."""
    accelerated = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(accelerated if name == "auto" else name)
