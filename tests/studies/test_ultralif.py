"""What is special about the study of UltraLIF: paired networks, an unbiased choice, sharp checks, data of one's own."""

import math

import pytest
import torch
from safetensors.torch import save_file

from interplay.primitives.randomness import generator_of
from interplay.spiking.ultralif import SpikingClassifier, UltraLIF
from interplay.studies.ultralif import AT_ONE_STEP, HISTOGRAM, IMAGES, IN_TIME, NEURONS, best, run, study
from interplay.studies.ultralif.tasks import Course, event_tasks, image_task
from interplay.studies.ultralif.theory import gradient_error, hard_course, vanishing

SMALL = {"training": 120, "validation": 30, "test": 40}


@pytest.fixture(scope="module")
def config():
    return study.configure("smoke")


@pytest.fixture(scope="module")
def measurements(config):
    return study.run_trial(config, 0)


@pytest.fixture(scope="module")
def tasks():
    return event_tasks(0, file=None, **SMALL)


def test_tasks_are_views_of_the_same_recordings(tasks):
    histogram, scaled, in_time = tasks
    assert torch.equal(histogram.test.inputs, in_time.test.inputs.sum(1))
    assert torch.equal(histogram.test.labels, scaled.test.labels)
    largest = histogram.train.inputs.amax(0).clamp(min=1)
    assert torch.equal(scaled.test.inputs * largest, histogram.test.inputs) or torch.allclose(
        scaled.test.inputs * largest, histogram.test.inputs
    )
    assert scaled.train.inputs.max() == 1
    assert histogram.encode(histogram.test.inputs, generator_of(0)).shape == (1, 40, 140)
    assert in_time.encode(in_time.test.inputs, generator_of(0)).shape == (10, 40, 140)


def test_images_become_spikes_of_half_their_brightness():
    task = image_task(0, file=None, steps=400, **SMALL)
    spikes = task.encode(task.test.inputs[:1], generator_of(0))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(spikes.mean(0), 0.5 * task.test.inputs[:1], atol=5 * math.sqrt(0.25 / 400))


def test_more_digits_than_there_are_need_a_file():
    with pytest.raises(ValueError, match="MNIST-5k has 5000 images, asked are 5001; set images=FILE"):
        image_task(0, file=None, training=4000, validation=1, test=1000, steps=1)


def test_neurons_that_are_one_function_at_one_step_get_one_result(config, tasks):
    histogram, _, in_time = tasks
    for name, twin in (("PLIF", "LIF"), ("AdaLIF", "LIF"), ("UltraDPLIF", "UltraDLIF")):
        one, other = (run(config, histogram, neuron, 0, 1, 3) for neuron in (name, twin))
        assert (one.accuracy, one.rate) == pytest.approx((other.accuracy, other.rate))
        one, other = (run(config, in_time, neuron, 0, 1, 1) for neuron in (name, twin))
        assert one.rate != pytest.approx(other.rate)


def test_training_learns_and_depends_on_its_seed_alone(config, tasks):
    torch.manual_seed(1)
    one = run(config, tasks[0], "UltraPLIF", 0, 1, 12)
    torch.manual_seed(2)
    again, other = (run(config, tasks[0], "UltraPLIF", seed, 1, 12) for seed in (0, 1))
    assert one == again
    assert one != other
    assert len(one.temperatures) == len(one.decays) == 12
    assert one.decays[-1] != pytest.approx(0.9, abs=1e-3)


def test_a_penalty_silences(config, tasks):
    plain, sparse = (run(config, tasks[0], "UltraPLIF", 0, 1, 20, penalty=penalty) for penalty in (0.0, 30.0))
    assert sparse.rate < 0.8 * plain.rate


def test_the_choice_among_neurons_looks_at_validation_data_alone():
    courses = {
        "UltraLIF": Course(0.9, 0.9, 0.5, 0.5, [], []),
        "UltraPLIF": Course(0.1, 0.1, 0.6, 0.5, [], []),
        "UltraDLIF": Course(0.5, 0.5, 0.7, 0.5, [], []),
    }
    assert best(courses, "UltraLIF", "UltraPLIF") == "UltraPLIF"


def test_every_network_is_scored_soft_and_hard(measurements):
    for task, names in ((HISTOGRAM, AT_ONE_STEP), (IN_TIME, NEURONS), (IMAGES, AT_ONE_STEP)):
        for metric in ("accuracy", "hard accuracy"):
            rows = measurements[(measurements["metric"] == metric) & (measurements["item"] == task)]
            assert set(names) <= set(rows["condition"])
            assert rows["value"].between(0, 1).all()
    hard = measurements[measurements["condition"] == "LIF hard"].set_index(["metric", "item", "x"])["value"]
    for task in (HISTOGRAM, IN_TIME, IMAGES):
        assert hard["accuracy", task, 1.0] == hard["hard accuracy", task, 1.0]


def test_tables_are_left_to_the_first_seeds(config):
    later = study.run_trial(config.model_copy(update={"table_seeds": 1}), 1)
    assert not later["metric"].str.endswith(("by penalty", "by temperature")).any()


def test_the_check_of_gradients_finds_a_mismatch():
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64), torch.tensor([0, 2])
    errors = {}
    for name in ("UltraPLIF", "SigmaLIF", "LIF hard"):
        torch.manual_seed(0)
        errors[name] = gradient_error(SpikingClassifier(3, (4,), 3, NEURONS[name]).double(), x, labels)
    assert errors["UltraPLIF"] < 1e-7
    assert errors["SigmaLIF"] < 1e-7
    assert errors["LIF hard"] > 0.1


def test_the_hard_course_is_the_limit_of_ultralif():
    current = torch.randn(6, 1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    membrane, spikes = hard_course(current)
    potential = [0.0] * 40
    for now, level, fired in zip(current[:, 0].tolist(), membrane[:, 0].tolist(), spikes[:, 0].tolist(), strict=True):
        potential = [max(v + math.log(0.9), i) for v, i in zip(potential, now, strict=True)]
        assert level == pytest.approx(potential)
        assert fired == [float(v >= 0) for v in potential]
        potential = [0.0 if v >= 0 else v for v in potential]
    sharp, _ = UltraLIF(eps=1e-4, learn_eps=False).double().sequence(current)
    assert torch.allclose(sharp, spikes, atol=1e-3)


def test_saturated_spikes_send_no_gradient():
    counts, labels = torch.full((8, 5), 1e6), torch.arange(8) % 3
    rows = {
        (row.condition, row.x): row.value
        for row in vanishing(
            {"LIF hard": NEURONS["LIF hard"]}, counts, labels, torch.Generator().manual_seed(0), layers=2
        )
        if row.metric == "share of gradients that are zero"
    }
    assert rows["LIF hard", 1] == 1.0
    assert rows["LIF hard", 2] < 0.5


def test_recordings_and_images_of_ones_own(tmp_path, config):
    generator = torch.Generator().manual_seed(0)
    recordings = {
        "train_inputs": torch.poisson(torch.ones(90, 6, 12), generator=generator),
        "train_labels": torch.arange(90) % 3,
        "test_inputs": torch.poisson(torch.ones(20, 6, 12), generator=generator),
        "test_labels": torch.arange(20) % 3,
    }
    images = recordings | {
        "train_inputs": torch.rand(90, 1, 4, 4, generator=generator),
        "test_inputs": torch.rand(20, 1, 4, 4, generator=generator),
    }
    save_file(recordings, tmp_path / "recordings.safetensors")
    save_file(images, tmp_path / "images.safetensors")
    files = {"events": tmp_path / "recordings.safetensors", "images": tmp_path / "images.safetensors"}
    measured = study.run_trial(study.configure("smoke", {**files, "validation_samples": 10}), 0)
    assert {HISTOGRAM, IN_TIME, IMAGES} <= set(measured["item"].dropna())
    histogram, _, _ = event_tasks(0, file=files["events"], training=1000, validation=10, test=1000)
    assert (len(histogram.train.labels), len(histogram.validation.labels), len(histogram.test.labels)) == (80, 10, 20)

    with pytest.raises(ValueError, match="holds 90 training samples, not more than validation=100"):
        event_tasks(0, file=files["events"], training=10, validation=100, test=10)
    save_file({"train_inputs": recordings["train_inputs"]}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match="lacks train_labels, test_inputs, test_labels"):
        event_tasks(0, file=tmp_path / "part.safetensors", training=10, validation=10, test=10)
