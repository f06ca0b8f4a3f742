"""Two-layer students: against the official code's numbers, the optimiser under autograd, and networks one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interplay.dynamics.curl_descent import (
    CurlDescent,
    LearningRule,
    TwoLayerTeacherStudent,
    curl_fraction,
    field_curl_fraction,
    flip_plan,
    gaussian_inputs,
    lyapunov_exponent,
    simulate,
    stability_matrix,
)
from interplay.testing import check_mechanism, check_same_seed

# Final weights and loss of the official `TeacherStudentLearning` (numpy, commit a79f32a) after 100 epochs of
# `learning_simu_batch` with batch_size equal to the number of points, learning_rate=0.1, batch_norm=False and
# normalize_weights=False, from the weights and inputs that `wave` gives below.
OFFICIAL = json.loads((Path(__file__).parent / "curl_descent_official.json").read_text())
NAMES = {"lin": "linear", "tanh": "tanh", "relu": "relu"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(rows: int, columns: int, phase: float, amplitude: float) -> torch.Tensor:
    r, c = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return torch.from_numpy(amplitude * np.sin(1.7 * r + 0.9 * c + 0.31 * r * c + phase))


def signs(neurons: int, flipped: int) -> torch.Tensor:
    return torch.cat([-torch.ones(flipped), torch.ones(neurons - flipped)]).double()


def waves(nonlinearity: str) -> TwoLayerTeacherStudent:
    return TwoLayerTeacherStudent(
        wave(7, 12, 2.3, 1.5 * 12**-0.5)[None],
        wave(1, 7, 0.7, 1.5 * 7**-0.5)[None],
        wave(7, 12, 0.2, 12**-0.5)[None],
        wave(1, 7, 1.1, 7**-0.5)[None],
        nonlinearity=nonlinearity,
    )


@pytest.mark.parametrize("case", OFFICIAL)
def test_simulation_agrees_with_the_official_code(case):
    nonlinearity, mode, rule = case.split()
    network, side = waves(NAMES[nonlinearity]), {"col": "pre", "row": "post"}[mode]
    gains = (signs(12, 3), signs(7, 2)) if side == "pre" else (signs(7, 3), signs(1, 0))
    feedback = wave(7, 1, 1.9, 7**-0.5)[None] if rule == "dfa" else None
    run = simulate(network, wave(20, 12, 0.5, 1.0), 100, LearningRule(0.1, *gains, side, feedback))
    expected = OFFICIAL[case]
    assert network.weight2[0, 0].tolist() == pytest.approx(expected["weight2"], rel=1e-10)
    assert network.weight1[0, 4].tolist() == pytest.approx(expected["weight1_row"], rel=1e-10)
    assert network.weight1.norm().item() == pytest.approx(expected["weight1_norm"], rel=1e-10)
    assert network.weight1.sum().item() == pytest.approx(expected["weight1_sum"], rel=1e-10)
    assert run.loss[-1].item() == pytest.approx(expected["loss"], rel=1e-10)


@pytest.mark.parametrize("case", [case for case in OFFICIAL if case.endswith("curl")])
def test_the_optimiser_agrees_with_the_official_code(case):
    nonlinearity, mode, _ = case.split()
    network, side = waves(NAMES[nonlinearity]), {"col": "pre", "row": "post"}[mode]
    first = nn.Parameter(network.weight1[0].detach().clone())
    second = nn.Parameter(network.weight2[0].detach().clone())
    gains = {first: signs(12, 3), second: signs(7, 2)}
    if side == "post":
        gains = {first: signs(7, 3)}
    optimizer = CurlDescent([first, second], 0.1, signs=gains, side=side, renorm="init_frobenius")
    phi = {"lin": lambda x: x, "tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
    x = wave(20, 12, 0.5, 1.0)
    targets = network.targets(x)[0]
    for _ in range(100):
        optimizer.zero_grad()
        drive = phi(x @ first.T) @ second.T
        # The published rule leaves out the slope of the output: the error is what the drive gets as its gradient.
        drive.backward((phi(drive.detach()) - targets) / len(x))
        optimizer.step()
    assert second[0].tolist() == pytest.approx(OFFICIAL[case]["weight2"], rel=1e-10)
    assert first[4].tolist() == pytest.approx(OFFICIAL[case]["weight1_row"], rel=1e-10)


@pytest.mark.parametrize("nonlinearity", ["linear", "tanh", "relu"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_directions_are_the_gradient_of_the_loss(nonlinearity, outputs):
    network = TwoLayerTeacherStudent.draw(
        5, 4, batch=3, outputs=outputs, generator=generator(), nonlinearity=nonlinearity, output_derivative=True
    )
    x = gaussian_inputs(9, 5, generator=generator(1))
    loss = network.loss(x)
    # With several outputs the loss is a mean over them, the rule a sum.
    slopes = torch.autograd.grad(loss.sum() * outputs, [network.weight1, network.weight2])
    directions = network.directions(x, network.targets(x))
    assert_close(directions.weight1, slopes[0])
    assert_close(directions.weight2, slopes[1])
    assert_close(directions.loss, loss)


@pytest.mark.parametrize("outputs", [1, 2])
def test_covariance_and_points_give_the_same_run(outputs):
    x = gaussian_inputs(30, 6, generator=generator(1))
    rule = LearningRule(gains1=signs(6, 2), gains2=signs(4, 1))
    networks = [TwoLayerTeacherStudent.draw(6, 4, batch=2, outputs=outputs, generator=generator()) for _ in range(2)]
    by_covariance = simulate(networks[0], x, 50, rule)
    # Each network its own points, as a minibatch of all of them, does not take the short cut.
    by_points = simulate(networks[1], x, 50, rule, batch_size=30, generator=generator())
    assert_close(by_covariance.loss, by_points.loss)
    assert_close(networks[0].weight1, networks[1].weight1)


def test_the_population_is_the_limit_of_many_points():
    x = gaussian_inputs(400_000, 4, generator=generator(1))
    networks = [TwoLayerTeacherStudent.draw(4, 3, generator=generator()) for _ in range(2)]
    assert_close(simulate(networks[0], x, 30).loss, simulate(networks[1], 0.5, 30).loss, rtol=0.03, atol=1e-9)


@pytest.mark.parametrize("nonlinearity", ["linear", "tanh"])
def test_networks_at_once_equal_networks_one_by_one(nonlinearity):
    scale = torch.tensor([1.0, 2.0, 3.0])
    network = TwoLayerTeacherStudent.draw(6, 4, batch=3, scale=scale, generator=generator(), nonlinearity=nonlinearity)
    gains = torch.stack([signs(4, flipped) for flipped in (0, 1, 2)])
    x = torch.randn(3, 11, 6, generator=generator(2), dtype=torch.float64)
    singles = [network.select(torch.tensor([index])) for index in range(3)]
    run = simulate(network, x, 40, LearningRule(gains2=gains), test_inputs=x + 1, test_every=16, window=10)
    assert run.test_steps == [0, 16, 32, 40]
    for index, single in enumerate(singles):
        alone = simulate(
            single,
            x[[index]],
            40,
            LearningRule(gains2=gains[[index]]),
            test_inputs=x[[index]] + 1,
            test_every=16,
            window=10,
        )
        assert_close(run.loss[:, index], alone.loss[:, 0])
        assert_close(run.test_loss[:, index], alone.test_loss[:, 0])
        assert_close(run.order_parameter[[index]], alone.order_parameter)
        assert_close(network.weight1[index], single.weight1[0])


def test_adam_at_once_is_pytorchs_adam():
    network = TwoLayerTeacherStudent.draw(
        5, 4, batch=2, generator=generator(), nonlinearity="tanh", output_derivative=True
    )
    x = gaussian_inputs(9, 5, generator=generator(1))
    other = network.select(torch.arange(2))
    simulate(
        network, x, 20, LearningRule(renormalise=False, optimizer=lambda weights: torch.optim.Adam(weights, lr=1e-2))
    )
    adam = torch.optim.Adam(other.parameters(), lr=1e-2)
    for _ in range(20):
        adam.zero_grad()
        other.loss(x).sum().backward()
        adam.step()
    assert_close(network.weight1, other.weight1)


def test_noise_is_as_long_as_what_the_flips_change():
    network = TwoLayerTeacherStudent.draw(5, 4, batch=2, generator=generator(), nonlinearity="tanh", shared=True)
    x = gaussian_inputs(9, 5, generator=generator(1))
    before = network.weight2.detach().clone()
    direction = network.directions(x, network.targets(x)).weight2.detach()
    rule = LearningRule(1.0, gains2=signs(4, 1), noisy=torch.tensor([True, False]), renormalise=False)
    simulate(network, x, 1, rule, generator=generator())
    moved = before - network.weight2.detach()
    assert_close(moved[1], direction[1] * signs(4, 1))
    noise = moved[0] - direction[0]
    assert noise.norm().item() == pytest.approx(2 * direction[0, 0, 0].abs().item())
    assert (noise.abs() > 0).all()


def test_minibatches_see_every_point_once_a_pass():
    network = TwoLayerTeacherStudent.draw(3, 2, generator=generator(), nonlinearity="tanh")
    x = gaussian_inputs(10, 3, generator=generator(1))
    small = network.select(torch.tensor([0]))
    simulate(network, x, 1, LearningRule(1e-6, renormalise=False))
    simulate(small, x, 1, LearningRule(1e-6 * 4 / 10, renormalise=False), batch_size=4, generator=generator())
    # 4 + 4 + 2 points, each minibatch a mean: the last two weigh double.
    assert (small.weight1 - network.weight1).abs().max() < 1e-6
    check_same_seed(lambda seed: trained_on_minibatches(seed))


def trained_on_minibatches(seed: int) -> torch.Tensor:
    network = TwoLayerTeacherStudent.draw(3, 2, generator=generator(), nonlinearity="tanh")
    x = gaussian_inputs(10, 3, generator=generator(1))
    return simulate(network, x, 3, batch_size=4, generator=generator(seed)).loss


def test_time_to_a_level_is_censored_at_the_horizon():
    network = TwoLayerTeacherStudent.draw(4, 6, batch=4, generator=generator())
    gains = torch.stack([signs(4, 0), signs(4, 0), signs(4, 4), signs(4, 4)])
    run = simulate(network, 0.5, 800, LearningRule(gains1=gains * torch.tensor([1.0, 1, -1, 0]).double()[:, None]))
    level = run.loss[300, 0].item()
    steps = run.steps_to(level, 500)
    assert steps[0] == 301
    for index in range(4):
        below = (run.loss[:501, index] < level).nonzero()
        assert steps[index] == (below[0] if len(below) else 500)
    assert run.steps_to(-1.0, 500).tolist() == [500.0] * 4


def test_a_run_ends_when_all_are_below():
    network = TwoLayerTeacherStudent.draw(4, 6, batch=3, generator=generator())
    whole = simulate(network.select(torch.arange(3)), 0.5, 2000)
    run = simulate(network, 0.5, 2000, stop_below=1e-5)
    assert 1 < len(run.loss) < 2001
    assert_close(run.loss, whole.loss[: len(run.loss)])
    assert (run.loss.min(0).values < 1e-5).all()
    assert run.order_parameter.isnan().all()


def test_the_order_parameter_is_its_definition():
    network = TwoLayerTeacherStudent.draw(6, 6, batch=2, generator=generator())
    rule = LearningRule(gains1=signs(6, 4))
    simulate(network, 0.5, 100, rule)
    history, copied = [], network.select(torch.arange(2))
    for _ in range(20):
        simulate(copied, 0.5, 1, rule)
        history.append(torch.cat([copied.weight1.flatten(1), copied.weight2.flatten(1)], 1).detach())
    weights = torch.stack(history)
    expected = weights.var(0, correction=0).mean(1) / weights.mean(0).var(1, correction=0)
    assert_close(simulate(network, 0.5, 20, rule, window=20).order_parameter, expected, rtol=1e-6, atol=0)


def test_lyapunov_exponents_tell_chaos_from_convergence():
    network = TwoLayerTeacherStudent.draw(30, 30, batch=2, generator=generator(), shared=True)
    rule = LearningRule(gains1=torch.stack([signs(30, 0), signs(30, 10)]))
    simulate(network, 0.5, 4000, rule)
    before = network.weight1.detach().clone()
    converging, chaotic = lyapunov_exponent(network, 0.5, 4000, rule, generator=generator()).tolist()
    assert abs(converging) < 1e-5, "a manifold of solutions neither attracts nor repels along itself"
    assert chaotic > 1e-4
    assert torch.equal(network.weight1, before)


def test_the_lyapunov_exponent_is_the_rate_of_the_unstable_direction():
    """At the teacher, without rescaling, distances grow at -eta sigma^2 lambda of the stability matrix."""
    network = TwoLayerTeacherStudent.draw(8, 5, generator=generator()).at_teacher(0)
    d1 = signs(8, 8)
    matrix = stability_matrix(network.weight1.detach(), network.weight2.detach(), d1, signs(5, 0))
    expected = -0.02 * 0.5 * torch.linalg.eigvalsh(matrix)[:, 0]
    rule = LearningRule(0.02, gains1=d1, renormalise=False)
    measured = lyapunov_exponent(network, 0.5, 12_000, rule, generator=generator(), renew_every=1000)
    assert expected.item() > 0
    assert measured.item() == pytest.approx(expected.item(), rel=0.05)


@pytest.mark.parametrize("side", ["pre", "post"])
def test_curl_fraction_agrees_with_the_dense_jacobian(side):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    batch = torch.randn(7, 4).double(), torch.randn(7, 2).double()
    plan = flip_plan(model, {"0": 2, "2": 1}, side=side, generator=generator())
    names = [name for name, _ in model.named_parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    gains = torch.cat([plan.get(p, p.new_ones(())).expand_as(p).flatten() for p in model.parameters()])

    def loss(flat: torch.Tensor) -> torch.Tensor:
        point = {
            name: part.view_as(parameter)
            for name, part, parameter in zip(names, flat.split(sizes), model.parameters(), strict=True)
        }
        return nn.functional.mse_loss(torch.func.functional_call(model, point, (batch[0],)), batch[1])

    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    jacobian = -gains[:, None] * torch.autograd.functional.hessian(loss, flat)
    dense = (jacobian - jacobian.T).norm() / 2 / jacobian.norm()
    estimate = curl_fraction(model, nn.functional.mse_loss, batch, plan, side=side, probes=2000, generator=generator())
    assert estimate == pytest.approx(dense.item(), rel=0.05)
    assert curl_fraction(model, nn.functional.mse_loss, batch, generator=generator()) < 1e-12


def test_curl_fraction_of_a_rotation_and_of_a_contraction():
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    point = {"w": torch.tensor([0.3, 0.4])}
    assert field_curl_fraction(lambda p: {"w": turn @ p["w"]}, point, generator=generator()) == pytest.approx(1)
    assert field_curl_fraction(lambda p: {"w": -p["w"]}, point, generator=generator()) == 0
    mixed = field_curl_fraction(lambda p: {"w": turn @ p["w"] - p["w"]}, point, generator=generator())
    assert mixed == pytest.approx(0.5**0.5)


def test_students_are_a_module_like_any_other():
    network = TwoLayerTeacherStudent.draw(
        4, 3, batch=2, outputs=2, generator=generator(), nonlinearity="tanh", dtype=torch.float32
    )
    x = torch.randn(5, 4, generator=generator())
    check_mechanism(network, x, batch_dim=0, bad_inputs={"wrong width": (torch.randn(5, 3),), "a vector": (x[0],)})
    check_same_seed(lambda seed: TwoLayerTeacherStudent.draw(4, 3, generator=generator(seed)).weight1.detach())


def test_weights_are_drawn_in_their_ranges():
    scale = torch.tensor([1.0, 3.0])
    network = TwoLayerTeacherStudent.draw(100, 25, batch=2, scale=scale, teacher_scale=2.0, generator=generator())
    for weight, limits in (
        (network.weight1, [0.1, 0.3]),
        (network.weight2, [0.2, 0.6]),
        (network.teacher_weight1, [0.2, 0.2]),
    ):
        for part, limit in zip(weight, limits, strict=True):
            assert 0.75 * limit < part.abs().max().item() <= limit
            assert part.mean().abs().item() < 0.3 * limit
    shared = TwoLayerTeacherStudent.draw(100, 25, batch=2, scale=scale, generator=generator(), shared=True)
    assert_close(shared.weight1[1], 3 * shared.weight1[0])
    assert torch.equal(shared.teacher_weight1[0], shared.teacher_weight1[1])


def test_at_the_teacher_the_loss_is_that_of_the_perturbation():
    network = TwoLayerTeacherStudent.draw(4, 3, batch=2, generator=generator())
    x = gaussian_inputs(9, 4, generator=generator())
    assert (network.at_teacher(0).loss(x) == 0).all()
    shifted = 1e-3 * (network.teacher_weight1 @ x.T).sum(1)
    assert_close(network.at_teacher(1e-3).loss(x), shifted.square().mean(1) / 2)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step():
    network = TwoLayerTeacherStudent.draw(6, 4, batch=2, generator=generator(), scale=torch.tensor([1.0, 1e3]))
    with pytest.raises(FloatingPointError, match=r"not finite from step \d+ on, of network 1: lower lr"):
        simulate(network, 0.5, 300, LearningRule(1.0, renormalise=False))


small = TwoLayerTeacherStudent.draw(3, 2, batch=2, generator=generator())
tanh = TwoLayerTeacherStudent.draw(3, 2, batch=2, generator=generator(), nonlinearity="tanh")
x = gaussian_inputs(5, 3, generator=generator())
BAD = {
    "steps": (lambda: simulate(small, x, 0), "steps must be 1 or more"),
    "gains": (
        lambda: simulate(small, x, 1, LearningRule(gains1=torch.ones(2))),
        r"gains1 must have shape \(3,\) or \(2, 3\) .* side 'pre'; got \(2,\)",
    ),
    "feedback": (
        lambda: simulate(small, x, 1, LearningRule(feedback=torch.ones(2, 3, 1))),
        r"feedback must have shape \(2, 2, 1\); got \(2, 3, 1\)",
    ),
    "zero": (
        lambda: simulate(TwoLayerTeacherStudent.draw(3, 2, scale=0.0, generator=generator()), x, 1),
        r"weight1 of shape \(1, 2, 3\) has a network with norm zero",
    ),
    "generator": (lambda: simulate(small, x, 1, batch_size=2), "pass a generator"),
    "variance": (lambda: simulate(tanh, 0.5, 1), r"inputs given as a variance \(0.5\) must be positive, for linear"),
    "negative variance": (lambda: simulate(small, -0.5, 1), "must be positive"),
    "width": (lambda: simulate(tanh, torch.ones(5, 4).double(), 1), r"inputs must have shape \(points, 3\)"),
    "nonlinearity": (
        lambda: TwoLayerTeacherStudent.draw(3, 2, generator=generator(), nonlinearity="sine"),
        "nonlinearity must be one of linear, tanh, relu",
    ),
    "shapes": (
        lambda: TwoLayerTeacherStudent(
            torch.ones(1, 2, 3), torch.ones(1, 1, 3), torch.ones(1, 2, 3), torch.ones(1, 1, 2)
        ),
        r"weight2 must have shape \(1, 1, 2\) to fit weight1 \(1, 2, 3\); got \(1, 1, 3\)",
    ),
    "sizes": (lambda: TwoLayerTeacherStudent.draw(0, 2, generator=generator()), "inputs must be 1 or more; got 0"),
    "probes": (
        lambda: field_curl_fraction(lambda p: p, {"w": torch.ones(2)}, probes=0, generator=generator()),
        "probes must be 1 or more",
    ),
    "foreign signs": (
        lambda: curl_fraction(
            nn.Linear(2, 1),
            nn.functional.mse_loss,
            (torch.ones(1, 2), torch.ones(1, 1)),
            {torch.ones(2): torch.ones(2)},
            generator=generator(),
        ),
        "the model does not train",
    ),
    "renewals": (
        lambda: lyapunov_exponent(small, 0.5, 60, LearningRule(), generator=generator()),
        "two or more renewals of 50; got 60",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
