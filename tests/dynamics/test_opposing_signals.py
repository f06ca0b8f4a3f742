"""The diagnosis: recorded changes, groups and their null, and a monitor that sees and does not touch."""

import copy
import io
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from interplay.dynamics.opposing_signals import (
    LossChangeRecorder,
    OpposingSignalsMonitor,
    Probe,
    diagnose,
    drop_groups,
    find_opposing_groups,
    gradient_opposition,
    hugging_face_callback,
    lightning_callback,
    reweight,
    sequence_loss,
    sharpness,
)
from interplay.testing import check_mechanism, check_same_seed
from tests.dynamics.opposing_signals_network import closed_form_network, closed_form_samples, cross_entropy


def losses_over_time(steps=12, samples=7, seed=0):
    return torch.rand(steps, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestRecorder:
    @settings(deadline=None)
    @given(st.integers(1, 12), st.integers(2, 5), st.randoms(use_true_random=False))
    def test_rows_are_differences_however_a_step_is_cut(self, pieces, window, random):
        losses = losses_over_time()
        recorder = LossChangeRecorder(7, window, torch.float64)
        for step, row in enumerate(losses):
            order = list(range(7))
            random.shuffle(order)
            for piece in np.array_split(order, min(pieces, 7)):
                index = torch.as_tensor(piece)
                recorder.update(row[index], index, step=step)
        assert_close(recorder.matrix(), losses.diff(dim=0)[-window:])
        assert recorder.steps() == list(range(12))[-window:]
        assert_close(recorder.losses(), losses[-window:])
        assert_close(recorder.score(), losses.diff(dim=0).abs().mean(0))

    def test_running_means_need_no_rows(self):
        losses = losses_over_time()
        recorder = LossChangeRecorder(7, None, torch.float64)
        for step, row in enumerate(losses):
            recorder.update(row, step=10 * step)
        assert_close(recorder.score(), losses.diff(dim=0).abs().mean(0))
        with pytest.raises(ValueError, match="window=None keeps no rows"):
            recorder.matrix()

    def test_samples_that_a_step_leaves_out_have_no_change_and_keep_their_loss(self):
        recorder = LossChangeRecorder(3)
        recorder.update(torch.tensor([1.0, 2.0, 3.0]), step=0)
        recorder.update(torch.tensor([5.0]), torch.tensor([1]), step=1)
        recorder.update(torch.tensor([1.5, 6.0, 1.0]), step=2)
        assert_close(recorder.matrix(), torch.tensor([[torch.nan, 3.0, torch.nan], [0.5, 1.0, -2.0]]), equal_nan=True)
        assert_close(recorder.score(), torch.tensor([0.5, 2.0, 2.0]))

    def test_a_loss_that_is_not_finite_ends_the_record_with_its_step(self):
        recorder = LossChangeRecorder(2)
        for step in range(3):
            recorder.update(torch.tensor([1.0, 2.0]) * step, step=step)
        with pytest.warns(RuntimeWarning, match="sample 1 is not finite at step 3: recording stops"):
            recorder.update(torch.tensor([1.0, torch.nan]), step=3)
        recorder.update(torch.tensor([9.0, 9.0]), step=4)
        assert recorder.stopped_at == 3
        assert recorder.steps() == [1, 2]
        assert_close(recorder.matrix(), torch.tensor([[1.0, 2.0], [1.0, 2.0]]))

    def test_bad_input_is_refused(self):
        recorder = LossChangeRecorder(3)
        two = torch.ones(2)
        with pytest.raises(ValueError, match=r'got shape \(\): make it with reduction="none"'):
            recorder.update(torch.tensor(1.0), step=0)
        with pytest.raises(ValueError, match="loss has 2 samples, the recorder 3; give index"):
            recorder.update(two, step=0)
        with pytest.raises(ValueError, match=r"index must lie in \[0, 2\]; got 0 to 3"):
            recorder.update(two, torch.tensor([0, 3]), step=0)
        with pytest.raises(ValueError, match="index repeats samples"):
            recorder.update(two, torch.tensor([1, 1]), step=0)
        with pytest.raises(ValueError, match="index must be integers of shape"):
            recorder.update(two, torch.tensor([0.0, 1.0]), step=0)
        recorder.update(two, torch.tensor([0, 1]), step=5)
        with pytest.raises(ValueError, match="index repeats samples within step 5"):
            recorder.update(two, torch.tensor([1, 2]), step=5)
        with pytest.raises(ValueError, match="step must not decrease; got 4 after 5"):
            recorder.update(two, torch.tensor([0, 1]), step=4)
        for options, message in (
            ((1,), "n_samples must be 2"),
            ((3, 1), "window must be 2"),
            ((3, 5, torch.int32), "dtype"),
        ):
            with pytest.raises(ValueError, match=message):
                LossChangeRecorder(*options)


def planted_changes(steps=60, samples=200, members=6, size=1.0, noise=0.1, seed=0):
    """Two groups that see-saw with a slow envelope, among samples whose losses fall."""
    random = np.random.default_rng(seed)
    delta = noise * random.normal(size=(steps, samples)) - 0.01
    swing = size * (-1.0) ** np.arange(steps) * (1.2 + np.sin(np.arange(steps) / 7))
    index = random.permutation(samples)[: 2 * members]
    delta[:, index[:members]] += 1.5 * swing[:, None]
    delta[:, index[members:]] -= swing[:, None]
    return delta, set(index[:members].tolist()), set(index[members:].tolist())


class TestGroups:
    def test_planted_groups_are_named_and_measured(self):
        delta, larger, smaller = planted_changes()
        found = find_opposing_groups(delta, top=0.06)
        assert set(found.index_a.tolist()) == larger
        assert set(found.index_b.tolist()) == smaller
        assert found.found
        assert found.why.startswith("opposing groups of 6 and 6 samples")
        a, b = (delta[:, list(group)].mean(1) for group in (larger, smaller))
        assert found.opposition == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert found.alternation == pytest.approx(np.mean(a[1:] * a[:-1] < 0))
        total = np.abs(delta).sum()
        assert found.share == pytest.approx(np.abs(delta[:, list(larger | smaller)]).sum() / total)
        series = delta[:, np.concatenate([found.index_a, found.index_b])]
        values = np.linalg.svd(series - series.mean(0), compute_uv=False)
        assert found.pc1_explained == pytest.approx(values[0] ** 2 / (values**2).sum())
        np.testing.assert_allclose(found.score, np.abs(delta).mean(0))

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10_000), st.floats(0.01, 100))
    def test_names_follow_the_samples_and_units_do_not_matter(self, seed, scale):
        delta, _, _ = planted_changes()
        order = np.random.default_rng(seed).permutation(delta.shape[1])
        found, moved = find_opposing_groups(delta, 0.06), find_opposing_groups(scale * delta[:, order], 0.06)
        assert set(order[moved.index_a].tolist()) == set(found.index_a.tolist())
        assert moved.opposition == pytest.approx(found.opposition)
        assert moved.share == pytest.approx(found.share)
        assert moved.found

    def test_nothing_is_found_where_there_is_nothing(self):
        time = np.arange(100)[:, None]
        random = np.random.default_rng(0)
        falling = -np.exp(-time / 30) * random.uniform(0.5, 1.5, size=200)
        drifting = falling * random.choice([1.0, -1.0], size=200)
        together = (-1.0) ** time * random.uniform(0.5, 1.5, size=200)
        for delta, reason in (
            (falling, "all move together"),
            (together, "all move together"),
            (drifting, "drift apart but do not see-saw"),
            (np.zeros((50, 20)), "all move together"),
        ):
            found = find_opposing_groups(delta, 0.06)
            assert not found.found
            assert found.why.startswith("no opposing groups")
            assert reason in found.why

    def test_the_null_holds_its_level_on_noise(self):
        """Noise of heavy tails, white and as differences of white losses, which alternate by themselves."""
        random = np.random.default_rng(0)
        found = 0
        for repeat in range(60):
            losses = random.standard_t(3, size=(41, 120)) * random.uniform(0.1, 3, size=120)
            delta = np.diff(losses, axis=0) if repeat % 2 else losses
            found += find_opposing_groups(delta, 0.1, shuffles=99, seed=repeat).found
        assert found <= 2

    def test_the_same_seed_gives_the_same_groups(self):
        delta = np.random.default_rng(0).normal(size=(30, 40))
        check_same_seed(lambda seed: round(find_opposing_groups(delta, 0.2, shuffles=499, seed=seed).opposition_p, 12))

    def test_a_tensor_is_not_changed(self):
        delta = torch.as_tensor(planted_changes()[0])
        before = delta.clone()
        find_opposing_groups(delta.requires_grad_())
        assert torch.equal(delta.detach(), before)

    @pytest.mark.parametrize(
        ("delta", "options", "message"),
        [
            (np.ones((1, 8)), {}, "2 steps and 4 samples or more; got 1 and 8: record longer"),
            (np.ones(8), {}, r"delta must be \(steps, samples\)"),
            (np.ones((9, 8)), {"top": 0.0}, r"top must lie in \(0, 0.5\]; got 0.0"),
            (np.ones((9, 8)), {"top": 0.6}, r"top must lie in \(0, 0.5\]; got 0.6"),
            (np.ones((9, 8)), {"shuffles": 10}, "shuffles must be 99 or more"),
            (np.where(np.eye(8) > 0, np.nan, 1.0), {}, "not finite for 8 of 8 samples"),
        ],
    )
    def test_bad_input_is_refused(self, delta, options, message):
        with pytest.raises(ValueError, match=message):
            find_opposing_groups(delta, **options)


def planted_run(seed=0):
    """Classes 0 and 1 share a loud feature on some samples; descent at the edge of stability."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(160) % 4
    inputs = torch.randn(160, 12, generator=generator) * 0.3 + functional.one_hot(labels, 12)
    loud = torch.cat([(labels == 0).nonzero()[:6], (labels == 1).nonzero()[:6]]).flatten()
    inputs[loud] += 8 * torch.sin(torch.arange(12.0) + 1)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def train_step(step):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return model, (inputs, labels), train_step, loud


class TestMonitor:
    def test_a_diagnosis_names_the_planted_samples(self):
        model, data, train_step, loud = planted_run()
        report = diagnose(model, cross_entropy, data, train_step, 150, top=12 / 160, window=100, step_size=0.5)
        assert report.groups.found, report.groups.why
        assert {frozenset(index.tolist()) for index in (report.groups.index_a, report.groups.index_b)} == {
            frozenset(loud[:6].tolist()),
            frozenset(loud[6:].tolist()),
        }
        summary = report.summary()
        assert summary["edge of stability"] == 4
        assert summary["gradient cosine"] < 0
        assert sum(report.curvature.values()) == pytest.approx(report.top_curvature, rel=1e-3)
        table = report.table()
        assert set(table["sample"][:12]) == set(loud.tolist())
        assert table["group"].value_counts().to_dict() == {"rest": 148, "A": 6, "B": 6}
        spikes = report.spikes()
        assert (spikes["rise"] > 0).all()
        np.testing.assert_allclose(spikes[["A", "B", "rest"]].sum(axis=1), 1)
        first = spikes.iloc[0]
        steps = list(report.steps)
        rows = report.delta[steps.index(first["first step"]) : steps.index(first["last step"]) + 1]
        assert first["rise"] == pytest.approx(rows.mean(axis=1).sum())
        figure = report.figure()
        assert len(figure.axes) == 6
        assert all(axes.has_data() for axes in figure.axes)
        figure.savefig(io.BytesIO(), format="svg")

    def test_without_the_planted_samples_nothing_is_found(self):
        model, (inputs, labels), _, loud = planted_run()
        kept = torch.tensor(drop_groups(torch.utils.data.TensorDataset(inputs, labels), loud).indices)
        inputs, labels = inputs[kept], labels[kept]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

        def train_step(step):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

        report = diagnose(model, cross_entropy, (inputs, labels), train_step, 150, top=0.08, window=100)
        assert not report.groups.found
        assert "no opposing groups" in str(report)
        assert set(report.table()["group"]) == {"none"}
        assert report.summary()["found"] == 0
        assert all(axes.has_data() for axes in report.figure().axes)

    def test_watching_changes_nothing(self):
        states = []
        for watched in (False, True):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
            x, y = closed_form_samples(30, 4, 3)
            optimizer = torch.optim.Adam(model.parameters(), 0.01)
            monitors = [
                OpposingSignalsMonitor(model, cross_entropy, (x, y), sharpness_every=2, mode=mode)
                for mode in ("eval", "train")
            ]
            for step in range(6):
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                gradients = [parameter.grad.clone() for parameter in model.parameters()]
                if watched:
                    for monitor in monitors:
                        monitor.observe(step)
                assert model.training
                assert model[1].training
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    assert torch.equal(parameter.grad, gradient)
                optimizer.step()
            states.append(copy.deepcopy(model.state_dict()))
            if watched:
                monitors[1].report()
                check_mechanism(model.float().eval(), x.float())
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    def test_losses_of_the_loop_save_the_forward_pass(self):
        model, (inputs, labels), train_step, _ = planted_run()
        monitors = [OpposingSignalsMonitor(model, cross_entropy, (inputs, labels), sharpness_every=0) for _ in range(2)]
        for step in range(5):
            monitors[0].observe(step)
            monitors[1].observe(step, cross_entropy(model(inputs), labels))
            train_step(step)
        first, second = (monitor.report() for monitor in monitors)
        np.testing.assert_allclose(first.delta, second.delta, atol=1e-6)
        assert np.isnan(first.top_curvature)

    def test_the_report_is_that_of_the_functions(self):
        model, data, train_step, _ = planted_run()
        report = diagnose(model, cross_entropy, data, train_step, 60, top=0.1, sharpness_every=10)
        probe = Probe(data, cross_entropy)
        groups = report.groups
        expected = gradient_opposition(model, probe, groups.index_a, groups.index_b)
        assert report.gradient_cosine == pytest.approx(expected.cosine, abs=1e-5)
        assert report.gradient_norm["B"] == pytest.approx(expected.norm_b)
        assert report.top_curvature == pytest.approx(sharpness(model, probe).value, rel=1e-3)
        assert report.sharpness[:, 0].tolist() == [0, 10, 20, 30, 40, 50]

    @pytest.mark.filterwarnings("ignore:the loss of sample:RuntimeWarning")
    def test_a_run_that_diverges_is_reported_up_to_there(self):
        model, data, train_step, _ = planted_run()

        def breaking(step):
            train_step(step)
            if step == 20:
                with torch.no_grad():
                    model[0].weight.fill_(torch.nan)

        report = diagnose(model, cross_entropy, data, breaking, 50)
        assert report.stopped_at == 20
        assert report.steps[-1] == 19
        assert report.figure().axes

    def test_bad_input_is_refused(self):
        model, data, train_step, _ = planted_run()
        for options, message in (
            ({"every": 2}, "every must be odd"),
            ({"step_size": 0.0}, "step_size must be above 0"),
            ({"mode": "test"}, 'mode must be "eval" or "train"'),
            ({"sharpness_every": -1}, "sharpness_every must be zero or more"),
        ):
            with pytest.raises(ValueError, match=message):
                OpposingSignalsMonitor(model, cross_entropy, data, **options)
        with pytest.raises(ValueError, match="three observations or more; got 0"):
            OpposingSignalsMonitor(model, cross_entropy, data).report()
        with pytest.raises(ValueError, match="steps must be 3 or more"):
            diagnose(model, cross_entropy, data, train_step, 2)


class TestInterventions:
    def test_groups_are_dropped_or_turned_down(self):
        delta, larger, smaller = planted_changes(samples=40, members=3)
        groups = find_opposing_groups(delta, top=6 / 40)
        kept = drop_groups(torch.utils.data.TensorDataset(torch.arange(40)), groups)
        assert [int(value) for (value,) in kept] == [n for n in range(40) if n not in larger | smaller]
        weights = reweight(40, groups, 0.5)
        assert {n for n in range(40) if weights[n] == 0.5} == larger | smaller
        assert weights.sum() == 37

    def test_bad_input_is_refused(self):
        with pytest.raises(ValueError, match=r"groups must lie in \[0, 3\]; got 0 to 4"):
            reweight(4, [0, 4], 0.5)
        with pytest.raises(ValueError, match="factor must be a finite number"):
            reweight(4, [0], -1)
        with pytest.raises(ValueError, match="hold all 2 samples"):
            drop_groups(torch.utils.data.TensorDataset(torch.arange(2)), [0, 1])


class TestCallbacks:
    def test_hugging_face(self, tmp_path):
        import transformers

        torch.manual_seed(0)
        config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=6, resid_pdrop=0.1)
        model = transformers.GPT2LMHeadModel(config)
        tokens = torch.randint(0, 11, (12, 6), generator=torch.Generator().manual_seed(0))
        rows = [{"input_ids": row, "labels": row} for row in tokens]
        batches = [{"input_ids": tokens[:8], "labels": tokens[:8]}, {"input_ids": tokens[8:], "labels": tokens[8:]}]
        callback = hugging_face_callback(sequence_loss, batches, sharpness_every=4)
        arguments = transformers.TrainingArguments(
            str(tmp_path), max_steps=6, per_device_train_batch_size=4, gradient_accumulation_steps=2, report_to=[],
            optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", save_strategy="no", disable_tqdm=True,
            logging_strategy="no", use_cpu=True, dataloader_pin_memory=False,
        )  # fmt: skip
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[callback]).train()
        report = callback.report(top=0.4)
        assert report.steps.tolist() == [1, 2, 3, 4, 5, 6]
        assert report.sharpness[:, 0].tolist() == [0, 4]
        assert report.step_size == pytest.approx(0.1)
        model.eval()
        for row, loss in zip(tokens, report.losses[-1], strict=True):
            assert model(row[None], labels=row[None]).loss.item() == pytest.approx(loss, rel=1e-4)

    @pytest.mark.filterwarnings("ignore")
    def test_lightning(self, tmp_path):
        import lightning.pytorch as lightning

        class Classifier(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.network = closed_form_network(4, 6, 3)

            def forward(self, x):
                return self.network(x)

            def training_step(self, batch, index):
                return functional.cross_entropy(self(batch[0]), batch[1])

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.5)

        x, y = closed_form_samples(20, 4, 3)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 5)
        callback = lightning_callback(cross_entropy, (x, y), sharpness_every=0)
        model = Classifier()
        trainer = lightning.Trainer(
            max_steps=7, callbacks=[callback], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path, log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(model, loader)
        report = callback.report(top=0.3)
        assert report.steps.tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert report.step_size == pytest.approx(0.2 / 1.5)
        assert_close(torch.from_numpy(report.losses[-1]), cross_entropy(model(x), y).detach(), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(
        ("make", "package", "extra"),
        [(hugging_face_callback, "transformers", "llm"), (lightning_callback, "lightning.pytorch", "lightning")],
    )
    def test_a_missing_package_names_the_extra(self, monkeypatch, make, package, extra):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"pip install 'interplay\[{extra}\]'"):
            make(cross_entropy, [])

    def test_a_report_before_training_is_refused(self):
        with pytest.raises(ValueError, match="training has not begun"):
            hugging_face_callback(cross_entropy, []).report()


def test_loss_of_sequences_leaves_out_what_is_masked():
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, 3, -100, -100], [4, 5, 6, 0, 1]])
    expected = [
        functional.cross_entropy(logits[0, :2], labels[0, 1:3]),
        functional.cross_entropy(logits[1, :4], labels[1, 1:]),
    ]
    assert_close(sequence_loss(logits, labels), torch.stack(expected))


@pytest.mark.filterwarnings("ignore:the loss of sample 0 is not finite")
def test_a_run_that_is_not_finite_from_the_first_step_says_so():
    inputs, targets = torch.full((4, 2), torch.nan), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ValueError, match="not finite at step 0"):
        diagnose(nn.Linear(2, 2), nn.CrossEntropyLoss(reduction="none"), (inputs, targets), lambda step: None, 5)
