"""Which samples make the loss see-saw, do they sharpen the valley, and does Adam mind?

Digits of two classes get the same bright frame on a few images. Full-batch descent on a small network is watched: is it
those images that the detector names, do their gradients oppose each other, does the sharpness fall when they (and not
as many others) are left out, and what do other optimisers, normalisation and halved weights make of them? A closed-form
system shows the mechanism exactly; digits without any planting show what the detector says in the wild.
"""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt

from interplay.dynamics.opposing_signals import OpposingSignalsToy, reweight
from interplay.evidence import Measurement, Study, StudyConfig, all_of, mean, ratio, tally
from interplay.studies.opposing_signals.experiments import (
    ablated,
    amplified,
    describe,
    detection,
    digits_with_frames,
    inside_story,
    members,
    network,
    optimizers,
    raw_digits,
    sgd,
    toy,
    train,
    weak_frames,
    with_one_group,
)


class Config(StudyConfig):
    images: int = Field(1000, ge=100, le=5000, description="training images")
    share: float = Field(0.03, gt=0, le=0.05, description="part of all images that is planted in each of two classes")
    amplitude: PositiveFloat = Field(3.0, description="brightness of the planted frame, full ink = 1")
    amplitudes: tuple[float, ...] = Field((0.0, 1.5, 6.0), description="further amplitudes, same images")
    weak_amplitude: PositiveFloat = Field(0.3, description="brightness of the frame in the control, zeros against ones")
    rows: int = Field(6, ge=1, le=14, description="rows of the frame at the top and at the bottom")
    hidden: PositiveInt = Field(64, description="units in each of two hidden layers")
    eta: PositiveFloat = Field(0.1, description="step size of gradient descent")
    further_etas: tuple[PositiveFloat, ...] = Field((0.2, 0.4), description="further step sizes")
    adam: PositiveFloat = Field(1e-3, description="step size of Adam")
    lr_sign: PositiveFloat = Field(1e-3, description="sign step of SplitSign")
    steps: int = Field(400, ge=40, description="full-batch steps of every run; groups are sought in the second half")
    sharpness_every: PositiveInt = Field(9, description="steps between measurements of sharpness")
    inside_every: PositiveInt = Field(2, description="measurements of sharpness between those of the groups' gradients")
    toy_eta: PositiveFloat = Field(0.08, description="step size that is judged in the closed-form system")
    toy_etas: tuple[PositiveFloat, ...] = Field(
        (0.03, 0.04, 0.05, 0.06, 0.07, 0.09), description="further step sizes there"
    )
    toy_steps: PositiveInt = Field(600, description="steps there; the flow goes on for as long a time")
    toy_beta: PositiveFloat = Field(3.0, description="norm of the regular part of the target there")
    toy_alpha: PositiveFloat = Field(100.0, description="squared size of the outliers' feature there")
    toy_p: float = Field(0.1, gt=0, le=1, description="probability of an outlier there")


study = Study(
    "opposing-signals",
    Config,
    presets={
        "smoke": {
            "images": 200,
            "steps": 60,
            "sharpness_every": 20,
            "inside_every": 1,
            "amplitudes": (0.0,),
            "toy_etas": (0.05,),
            "toy_steps": 200,
        },
        "cpu": {},
        "paper": {"images": 5000, "hidden": 200, "steps": 2000, "toy_steps": 2000},
    },
    seeds={"smoke": 2, "cpu": 5, "paper": 10},
    caveat="Planted frames on digits and a small network; the paper watches ResNets and transformers on natural data.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    system = OpposingSignalsToy(config.toy_alpha, config.toy_p, beta_norm=config.toy_beta)
    yield from toy(seed, system, config.toy_eta, config.toy_etas, config.toy_steps)

    task = digits_with_frames(seed, config.images, config.share, config.amplitude, config.rows)
    top, eta, length = 2 * config.share, config.eta, (config.steps, config.sharpness_every)
    for name, optimizer in optimizers(eta, config.further_etas, config.adam, config.lr_sign).items():
        is_main = name == f"GD {eta:g}"
        checks = (config.sharpness_every, config.inside_every) if is_main else (0, 0)
        run = train(network(seed, config.hidden), task, optimizer, config.steps, checks[0], inside=checks[1])
        if is_main:
            yield from describe(run, "planted", eta)
            yield from detection(run, "planted", top)
            yield from inside_story(run, "planted")
        yield Measurement(name, "sum of loss increases by optimiser", run.increases())
        yield Measurement(name, "share of changes in planted samples", run.loud_share())
        yield Measurement(name, "final loss", float(run.losses[-1].mean()))
        for step, loss in enumerate(run.losses.mean(axis=1)):
            if step % 4 == 0:
                yield Measurement(name, "loss by optimiser", float(loss), step=step)

    others = {
        **ablated(task, seed),
        "group A alone": with_one_group(task, config.amplitude, config.rows),
        **{f"amplitude {a:g}": amplified(task, config.amplitude, a, config.rows) for a in config.amplitudes},
    }
    for name, changed in others.items():
        run = train(network(seed, config.hidden), changed, sgd(eta), *length)
        yield from describe(run, name, eta)
        yield Measurement(name, "groups found", float(run.groups(top).found))
    halved = reweight(config.images, task.loud.numpy(), 0.5)
    run = train(network(seed, config.hidden), task, sgd(eta), *length, weights=halved)
    yield from describe(run, "halved weights", eta)
    for name, changed in (("batch norm", task), ("batch norm, groups dropped", task.without(task.loud))):
        run = train(network(seed, config.hidden, normalised=True), changed, sgd(eta), *length)
        yield from describe(run, name, eta)

    weak = weak_frames(seed, config.images, config.share, config.weak_amplitude, config.rows)
    run = train(network(seed, config.hidden), weak, sgd(eta), *length)
    yield from describe(run, "weak frames", eta)
    yield from detection(run, "weak frames", top)
    run = train(network(seed, config.hidden), raw_digits(seed, config.images), sgd(eta), *length)
    yield from describe(run, "raw digits", eta)
    yield from detection(run, "raw digits", 0.02)
    yield from members(run, "raw digits", 0.02)


study.claim(
    "names-the-groups",
    "The samples whose loss changes most are the planted ones, in two groups whose losses move oppositely and turn on "
    "most steps; where a faint frame never brings the run to the edge, no opposing groups are reported.",
    paper="shown by images; number not known",
    test=all_of(
        mean("AUROC", "planted").above(0.95),
        mean("precision", "planted").above(0.9),
        mean("opposition", "planted").below(-0.6),
        mean("alternation", "planted").above(0.6),
        tally("groups found", "weak frames").below(0.5),
    ),
)
study.claim(
    "outsized-share",
    "Six percent of the samples carry most of all loss changes late in training.",
    paper='"outsized effect"; number not known',
    test=mean("share of changes in the groups", "planted").above(0.6),
)
study.claim(
    "opposed-gradients",
    "The gradients of the two groups point against each other late in training.",
    paper="direction only (abstract)",
    test=mean("gradient cosine, late", "planted").below(-0.4),
)
study.claim(
    "progressive-sharpening",
    "The groups cause the sharpening: the largest sharpness with them is five times that without them and late in "
    "training it stays within 40 % of 2 / eta, while leaving out as many random samples changes it by less than 15 %.",
    paper="direction only (abstract)",
    test=all_of(
        ratio("largest sharpness", "planted", "groups dropped").above(5),
        mean("late sharpness / (2 / eta)", "planted").between(0.6, 1.4),
        ratio("largest sharpness", "random dropped", "planted").between(0.85, 1.15),
    ),
)
study.claim(
    "spike-at-the-edge",
    "In the closed-form system the sharpness crosses 2 / eta, the loss spikes more than fivefold, and the sharpness "
    "ends below 2 / eta; under gradient flow it tends to p alpha |beta| with outliers and to 2 |beta| without.",
    paper="direction only (abstract); the limits follow from the closed form",
    test=all_of(
        tally("stays below 2 / eta", "toy, descent").below(0.5),
        mean("peak / loss at the crossing", "toy, descent").above(5),
        mean("final sharpness / (2 / eta)", "toy, descent").below(1),
        mean("sharpness at the end", "toy, flow").between(29.7, 30.3),
        mean("sharpness at the end", "toy, flow without outliers").between(5.94, 6.06),
    ),
)
study.claim(
    "adam-suffers-less",
    "Descent at three step sizes has loss increases and spends most of its changes on the planted samples; Adam and "
    "SplitSign have next to no increases (0.001 nats in all) and spend little there.",
    paper="case study; details not known",
    test=all_of(
        *(
            part
            for eta in (0.1, 0.2, 0.4)
            for part in (
                mean("sum of loss increases by optimiser", f"GD {eta:g}").above(0),
                mean("share of changes in planted samples", f"GD {eta:g}").above(0.9),
            )
        ),
        *(
            part
            for name in ("Adam", "SplitSign")
            for part in (
                mean("sum of loss increases by optimiser", name).below(1e-3),
                mean("share of changes in planted samples", name).below(0.15),
            )
        ),
    ),
)
for _condition, _sentence in (
    ("batch norm", "Batch normalisation lowers the largest sharpness."),
    ("halved weights", "Halving the weights of the planted samples lowers the largest sharpness."),
):
    study.claim(
        f"tamed-by-{_condition.replace(' ', '-')}",
        _sentence,
        paper="not known (reviews mention the prediction)",
        test=ratio("largest sharpness", _condition, "planted").below(1),
    )


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.opposing_signals import panels

    figure = Figure(figsize=(13, 15), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["groups", "groups", "sharpness", "sharpness", "heat", "heat"],
            ["inside", "inside", "ablations", "ablations", "found", "found"],
            ["optimizers", "optimizers", "increases", "increases", "share", "share"],
            ["toy", "toy", "etas", "etas", "gallery", "gallery"],
        ]
    )
    panels.draw_groups(axes["groups"], measurements)
    panels.draw_sharpness(axes["sharpness"], measurements)
    panels.draw_heat(axes["heat"], measurements)
    panels.draw_inside(axes["inside"], measurements)
    panels.draw_ablations(axes["ablations"], measurements)
    panels.draw_found(axes["found"], measurements)
    panels.draw_optimizers(axes["optimizers"], measurements)
    panels.draw_by_optimizer(axes["increases"], measurements, "sum of loss increases by optimiser")
    panels.draw_by_optimizer(axes["share"], measurements, "share of changes in planted samples")
    panels.draw_toy(axes["toy"], measurements)
    panels.draw_etas(axes["etas"], measurements)
    panels.draw_gallery(axes["gallery"], measurements)
    return figure
