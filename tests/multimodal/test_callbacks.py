"""Methods under Hugging Face's Trainer and Lightning end where a plain loop ends, resume, and log."""

import importlib.util
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from interplay.multimodal.agm import AGM
from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.modulation import MSES, MSLR, OGMGE, held_out
from interplay.multimodal.training import HeldOut

SAMPLES, BATCH, EPOCHS, RATE = 24, 8, 4, 0.1


def network(kind: str) -> FusionNet:
    torch.manual_seed(0)
    encoders = {"audio": nn.Linear(3, 4), "visual": nn.Linear(5, 6)}
    late = kind == "late"
    head = LinearFusion([4, 6], 3) if late else ConcatenationFusion(nn.Sequential(nn.Tanh(), nn.Linear(10, 3)))
    return FusionNet(encoders, head)


def samples() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "audio": torch.randn(3, generator=generator),
            "visual": torch.randn(5, generator=generator),
            "labels": torch.tensor(index % 3),
        }
        for index in range(SAMPLES)
    ]


def batches() -> list[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """The data in its order, as both trainers see it without shuffling."""
    every = samples()
    return [
        (
            {
                name: torch.stack([sample[name] for sample in every[start : start + BATCH]])
                for name in ("audio", "visual")
            },
            torch.stack([sample["labels"] for sample in every[start : start + BATCH]]),
        )
        for start in range(0, SAMPLES, BATCH)
    ]


def measure(method) -> dict[str, HeldOut]:
    return held_out(method, batches())


METHODS = {
    "AGM, late": lambda: AGM(network("late"), alpha=2.0, start=1, end=2),
    "AGM, early": lambda: AGM(network("early"), alpha=2.0),
    "OGM-GE": lambda: OGMGE(network("late"), alpha=0.5, start=1, generator=torch.Generator().manual_seed(3)),
    "MSLR": lambda: MSLR(network("late"), factors={"audio": 1.3, "visual": 0.7}, window=2),
    "MSES": lambda: MSES(network("early"), patience=1),
}
each_method = pytest.mark.parametrize("name", list(METHODS))


def plain_loop(name: str) -> dict[str, torch.Tensor]:
    method = METHODS[name]()
    optimizer = torch.optim.SGD(method.parameters(), lr=RATE, momentum=0.9)
    for epoch in range(EPOCHS):
        method.start_epoch(epoch)
        for inputs, labels in batches():
            optimizer.zero_grad()
            method.loss(inputs, labels).backward()
            method.adjust_gradients()
            optimizer.step()
        method.end_epoch(measure(method))
    return method.state_dict()


def assert_same_state(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=lambda text, name=name: f"{name}: {text}")


def trainer(method, folder, epochs: int = EPOCHS, **settings):
    from transformers import Trainer, TrainingArguments

    from interplay.multimodal.callbacks import HuggingFaceCallback

    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        **({"remove_unused_columns": False} | settings),
    )
    optimizer = torch.optim.SGD(method.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return Trainer(
        method,
        arguments,
        train_dataset=samples(),
        eval_dataset=samples(),
        optimizers=(optimizer, schedule),
        callbacks=[HuggingFaceCallback(method, validation=measure)],
    )


@each_method
def test_hugging_face_ends_where_a_plain_loop_ends_and_resumes(name, tmp_path):
    expected = plain_loop(name)
    method = METHODS[name]()
    whole = trainer(method, tmp_path / "whole")
    whole.train()
    assert_same_state(method.state_dict(), expected)
    logged = [entry for entry in whole.state.log_history if "loss" in entry]
    assert len(logged) == EPOCHS * SAMPLES // BATCH
    for key, value in method.diagnostics().items():
        assert key in logged[0]
        assert isinstance(value, float)
    assert 0 <= whole.evaluate()["eval_loss"] < 5
    assert whole.predict(samples()).predictions.shape == (SAMPLES, 3)

    checkpoint = tmp_path / "whole" / f"checkpoint-{2 * SAMPLES // BATCH}"
    resumed = METHODS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(resumed, tmp_path / "resumed").train(resume_from_checkpoint=str(checkpoint))
    assert_same_state(resumed.state_dict(), expected)


def lightning_model(method):
    from lightning.pytorch import LightningModule

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            self.method = method

        def training_step(self, batch, index):
            return self.method.loss(*batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=RATE, momentum=0.9)

    return Model()


def fit(method, folder, epochs: int = EPOCHS, checkpoint: str | None = None):
    import logging

    from lightning.pytorch import Trainer

    from interplay.multimodal.callbacks import LightningCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers, loggers and devices that a test does not have
        lightning = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=1,
            default_root_dir=folder,
            callbacks=[LightningCallback(method, validation=measure)],
        )
        loader = torch.utils.data.DataLoader(batches(), batch_size=None)
        lightning.fit(lightning_model(method), loader, ckpt_path=checkpoint)
    return lightning


@each_method
def test_lightning_ends_where_a_plain_loop_ends_and_resumes(name, tmp_path):
    expected = plain_loop(name)
    method = METHODS[name]()
    lightning = fit(method, tmp_path)
    assert_same_state(method.state_dict(), expected)
    for key in method.diagnostics():
        assert key in lightning.callback_metrics

    half = fit(METHODS[name](), tmp_path, epochs=2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = METHODS[name]()
    fit(resumed, tmp_path, checkpoint=str(tmp_path / "half.ckpt"))
    assert_same_state(resumed.state_dict(), expected)


def test_wrong_wiring_is_refused_with_the_way_to_mend_it(tmp_path):
    from lightning.pytorch import LightningModule

    from interplay.multimodal.callbacks import HuggingFaceCallback, LightningCallback

    method = METHODS["AGM, late"]()
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        trainer(method, tmp_path, remove_unused_columns=True)
    for callback in (HuggingFaceCallback, LightningCallback):
        with pytest.raises(TypeError, match="must be a TrainingMethod"):
            callback(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"self\.method = method"):
        LightningCallback(method).on_fit_start(None, LightningModule())


@pytest.mark.parametrize(
    ("library", "name", "extra"),
    [("transformers", "HuggingFaceCallback", "llm"), ("lightning", "LightningCallback", "lightning")],
)
def test_a_missing_library_names_its_extra(library, name, extra):
    assert importlib.util.find_spec(library) is not None
    script = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from interplay.multimodal import callbacks\n"
        f"try: callbacks.{name}\n"
        "except ImportError as error: sys.exit(0 if 'interplay[' + "
        f"{extra!r} + ']' in str(error) else str(error))\n"
        "sys.exit('no error')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
