"""The plane: the official code's numbers, a slow reference, the sign rule, the mask, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from interplay.steering.selective_steering import PlaneCoordinates, Rotate, SteeringPlane, ablation, plane_of_directions

OFFICIAL = json.loads((Path(__file__).parent / "data" / "selective_steering_official.json").read_text())


def two_classes(blocks=5, norms=("input_layernorm", "post_attention_layernorm"), width=24, positive=14, negative=11):
    """Classes that lie further apart in later blocks, with an offset of their own at every site; and a batch."""
    generator = np.random.default_rng(OFFICIAL["seed"])
    common = generator.standard_normal(width)
    pos, neg = {}, {}
    for index, site in enumerate(f"model.layers.{block}.{norm}" for block in range(blocks) for norm in norms):
        offset = generator.standard_normal(width)
        apart = common * (0.15 * index) + 0.5 * generator.standard_normal(width)
        for part, count, sign in ((pos, positive, 1), (neg, negative, -1)):
            drawn = offset + sign * apart + 0.7 * generator.standard_normal((count, width))
            part[site] = torch.from_numpy(drawn.astype(np.float32))
    return pos, neg, torch.from_numpy(generator.standard_normal((3, 4, width)).astype(np.float32))


@pytest.fixture
def plane() -> SteeringPlane:
    return SteeringPlane.fit(*two_classes()[:2])


def test_the_fit_is_the_official_one(plane):
    assert plane.mask == OFFICIAL["mask"]
    opposite = {site: plane.m_pos[site] * plane.m_neg[site] < 0 for site in plane.sites}
    assert opposite == OFFICIAL["opposite"]
    assert opposite != plane.mask  # the rule that all sites of a block must agree decides something
    b1, b2 = torch.tensor(OFFICIAL["b1"]), torch.tensor(OFFICIAL["b2"])
    torch.testing.assert_close(plane.b1, b1, rtol=0, atol=1e-6)
    torch.testing.assert_close(plane.b2 * (plane.b2 @ b2).sign(), b2, rtol=0, atol=1e-5)
    assert plane_of_directions(candidates(*two_classes()[:2])).selected == plane.sites.index(OFFICIAL["selected"])


@pytest.mark.parametrize("mode", ["ss", "sas", "aas", "actadd"])
def test_the_operators_are_the_official_ones(plane, mode):
    """The official addition too: it is the placement again."""
    h = two_classes()[2]
    sign = (plane.b2 @ torch.tensor(OFFICIAL["b2"])).sign()
    for theta, recorded in zip(OFFICIAL["thetas"], OFFICIAL["turned"][mode], strict=True):
        turned = Rotate(plane, "sas" if mode == "actadd" else mode)(h, float(sign) * theta)
        torch.testing.assert_close(turned.flatten(), torch.tensor(recorded), rtol=0, atol=1e-5)


def test_the_ablation_is_the_official_one(plane):
    gone = ablation(plane)(two_classes()[2])
    torch.testing.assert_close(gone.flatten(), torch.tensor(OFFICIAL["turned"]["ablation"][0]), rtol=0, atol=1e-5)


def candidates(pos, neg):
    return torch.stack([pos[site].double().mean(0) - neg[site].double().mean(0) for site in pos])


def test_the_fit_is_what_a_slow_reference_gives(plane):
    pos, neg, _ = two_classes()
    units = [difference / np.linalg.norm(difference) for difference in candidates(pos, neg).numpy()]
    best = max(range(len(units)), key=lambda row: sum(float(units[row] @ other) for other in units))
    b1 = units[best]
    component = PCA(1).fit(np.array(units)).components_[0]
    b2 = component - (component @ b1) * b1
    b2 *= np.sign(b2 @ pos[plane.sites[best]].numpy().mean(0)) / np.linalg.norm(b2)
    np.testing.assert_allclose(plane.b1.numpy(), b1, atol=1e-6)
    np.testing.assert_allclose(plane.b2.numpy(), b2, atol=1e-6)
    for part, found in ((pos, plane.m_pos), (neg, plane.m_neg)):
        for site, rows in part.items():
            cosines = [float(row @ b1 / np.linalg.norm(row)) for row in rows.double().numpy()]
            assert found[site] == pytest.approx(np.mean(cosines), abs=1e-6)
    for site, norm in zip(plane.sites, plane.norms.tolist(), strict=True):
        assert norm == pytest.approx(torch.cat([pos[site], neg[site]]).norm(dim=1).median().item())


def test_the_sign_does_not_depend_on_the_sign_of_the_component(plane, monkeypatch):
    pos, neg, _ = two_classes()
    svd = torch.linalg.svd

    def mirrored(*args, **kwargs):
        left, values, right = svd(*args, **kwargs)
        return -left, values, -right

    monkeypatch.setattr(torch.linalg, "svd", mirrored)
    assert torch.equal(SteeringPlane.fit(pos, neg).b2, plane.b2)
    differences = candidates(pos, neg)
    first = plane_of_directions(differences).b2
    monkeypatch.undo()
    assert torch.equal(plane_of_directions(differences).b2, first)
    assert first[first.abs().argmax()] > 0


def test_the_order_of_prompts_does_not_matter_and_swapped_classes_turn_the_direction(plane):
    pos, neg, _ = two_classes()
    shuffled = SteeringPlane.fit({site: rows.flip(0) for site, rows in pos.items()}, neg)
    torch.testing.assert_close(shuffled.b2, plane.b2, rtol=0, atol=1e-6)
    swapped = SteeringPlane.fit(neg, pos)
    torch.testing.assert_close(swapped.b1, -plane.b1, rtol=0, atol=1e-6)
    assert swapped.m_pos == pytest.approx({site: -value for site, value in plane.m_neg.items()}, abs=1e-6)
    assert swapped.mask == plane.mask


def test_the_mask_looks_at_cosines_and_not_at_lengths():
    """One long activation turns the sign of the mean product, not that of the mean cosine."""
    pos = {"layers.0.norm": torch.tensor([[1.0, 1, 0], [1, -1, 0], [-300, 0, 5], [400, 0, 0]])}
    neg = {"layers.0.norm": torch.tensor([[-1.0, 1, 0], [-1, -1, 0], [70, 0, 0]])}
    plane = SteeringPlane.fit(pos, neg, second="random")
    products = (neg["layers.0.norm"] @ plane.b1).mean()
    assert products > 0
    assert plane.mask == {"layers.0.norm": True}
    assert plane.discriminative_blocks == [0]


def test_a_site_that_sees_one_token_only_gives_no_direction():
    """The same activation in both classes, in different numbers: rounding of the means is no direction."""
    pos, neg, _ = two_classes()
    same = torch.randn(24, generator=torch.Generator().manual_seed(0)) * 37.7
    pos, neg = ({**part, "model.layers.9.norm": same.expand(count, -1)} for part, count in ((pos, 417), (neg, 355)))
    plane = SteeringPlane.fit(pos, neg)
    differences = candidates(*two_classes()[:2])
    exact = plane_of_directions(torch.cat([differences, torch.zeros(1, 24)]))
    torch.testing.assert_close(plane.b1, exact.b1.float(), rtol=0, atol=1e-6)
    assert abs(float(plane.b2 @ exact.b2.float())) == pytest.approx(1, abs=1e-6)
    assert not plane.mask["model.layers.9.norm"]


def test_other_second_directions():
    pos, neg, _ = two_classes()
    random = SteeringPlane.fit(pos, neg, second="random", seed=3)
    assert torch.equal(random.b2, SteeringPlane.fit(pos, neg, second="random", seed=3).b2)
    assert abs(float(random.b2 @ SteeringPlane.fit(pos, neg, second="random", seed=4).b2)) < 0.9
    vector = torch.arange(24.0)
    given = SteeringPlane.fit(pos, neg, second=vector)
    rest = vector - (vector @ given.b1) * given.b1
    towards = (pos[OFFICIAL["selected"]].mean(0) @ rest).sign()  # a given vector keeps to the rule of signs too
    torch.testing.assert_close(given.b2, towards * rest / rest.norm(), rtol=0, atol=1e-6)
    assert float(given.b1 @ given.b2) == pytest.approx(0, abs=1e-7)


def test_the_axes_stay_in_single_precision(plane):
    for cast in (plane.bfloat16(), plane.half(), plane.double(), plane.to("cpu", torch.float16)):
        assert cast is plane
        assert plane.b1.dtype == plane.alignments.dtype == torch.float32
    basis = plane.basis(torch.float64)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-15)
    assert plane.to("meta").b1.is_meta


def test_angles_and_coordinates(plane):
    for degrees in (-170.0, -45.0, 0.0, 100.0):
        point = 3 * (np.cos(np.deg2rad(degrees)) * plane.b1 + np.sin(np.deg2rad(degrees)) * plane.b2)
        assert float(plane.angle_of(point)) == pytest.approx(degrees, abs=1e-4)
        assert float(plane(point).norm()) == pytest.approx(3, rel=1e-5)


def test_a_step_of_a_pipeline(plane):
    pos, neg, _ = two_classes()
    site = OFFICIAL["selected"]
    X, y = np.concatenate([pos[site], neg[site]]), np.repeat([1, 0], [14, 11])
    pipeline = clone(make_pipeline(PlaneCoordinates(plane), LogisticRegression())).fit(X, y)
    assert pipeline.score(X, y) == 1
    assert list(pipeline[:-1].get_feature_names_out()) == ["b1", "b2"]
    np.testing.assert_allclose(pipeline[0].transform(X), X @ np.stack([plane.b1, plane.b2], 1), atol=1e-5)
    with pytest.raises(ValueError, match="do not fit"):
        pipeline.fit(X[:, 1:], y)


def test_files(plane, tmp_path):
    path = tmp_path / "plane.safetensors"
    plane.save(path)
    again = SteeringPlane.load(path)
    assert again.sites == plane.sites
    assert all(torch.equal(tensor, plane.state_dict()[name]) for name, tensor in again.state_dict().items())
    save_file({"b1": torch.ones(3)}, path)
    with pytest.raises(ValueError, match="holds no steering plane"):
        SteeringPlane.load(path)
    with pytest.raises(FileNotFoundError, match="no plane"):
        SteeringPlane.load(tmp_path / "nothing")


SITE = "layers.0.norm"
ROWS = torch.eye(4)


@pytest.mark.parametrize(
    ("pos", "neg", "options", "message"),
    [
        ({SITE: ROWS}, {SITE: ROWS[:0]}, {}, r"\[4, 4\] and \[0, 4\]"),
        ({SITE: ROWS}, {SITE: ROWS[:, :3]}, {}, r"\[4, 4\] and \[4, 3\]"),
        ({SITE: ROWS, "layers.1.norm": ROWS[:, :2]}, {SITE: ROWS, "layers.1.norm": ROWS[:, :2]}, {}, "width"),
        ({SITE: ROWS[0]}, {SITE: ROWS[0]}, {}, r"must be \[prompt, d_model\]"),
        ({SITE: ROWS}, {"layers.1.norm": ROWS}, {}, "the same sites"),
        ({}, {}, {}, "the same sites"),
        ({SITE: ROWS * torch.nan}, {SITE: ROWS}, {}, "not finite"),
        ({"norm": ROWS[:2]}, {"norm": ROWS[2:]}, {"second": "random"}, "names no block"),
        ({SITE: ROWS}, {SITE: ROWS}, {}, "same mean at every site"),
        ({SITE: ROWS[:2]}, {SITE: ROWS[2:]}, {}, "parallel to the first, or zero; pass second='random'"),
        ({SITE: ROWS[:1]}, {SITE: -ROWS[:1]}, {"second": ROWS[0]}, "parallel to the first"),
        ({SITE: ROWS[:2]}, {SITE: ROWS[2:]}, {"second": torch.ones(3)}, "finite vector of 4 entries"),
        ({SITE: ROWS[:2]}, {SITE: ROWS[2:]}, {"second": "both"}, "second must be"),
    ],
)
def test_bad_input_is_refused(pos, neg, options, message):
    with pytest.raises(ValueError, match=message):
        SteeringPlane.fit(pos, neg, **options)
