"""Every peer against a slow reference or a property that it must have."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from deploy.peers.layer_gaussians import LayerGaussians
from deploy.peers.layers import Layers
from deploy.peers.local_dimension import local_dimension
from deploy.peers.logistic import Logistic
from deploy.peers.peer import Material, Peer, Scorer, TorchScorer, Unfit
from deploy.peers.pytorch_ood import OOD_ENERGY
from deploy.peers.registry import PEERS
from deploy.peers.spectral import magnitudes
from deploy.peers.squeezing import FeatureSqueezing, fewer_bits, median_2x2
from deploy.peers.toolbox import BINARY_ACTIVATION, BINARY_INPUT, SUBSET_SCANNING
from tests.deploy.peers.conftest import quadrants, striped
from training.attacks.rounding import from_8_bit
from training.evaluation.metrics import auroc
from training.models import Classifier, build_model
from training.sections import ModelConfig

INSTALLED = tuple(peer for peer in PEERS if not peer.name.startswith("ood_"))


@pytest.fixture(scope="module")
def fitted(material: Material) -> dict[str, Scorer]:
    return {peer.name: peer.fit(material) for peer in INSTALLED}


@pytest.mark.parametrize("peer", INSTALLED, ids=lambda peer: peer.name)
def test_each_image_is_scored_by_itself_and_the_same_when_fitted_again(
    peer: Peer, fitted: dict[str, Scorer], material: Material
) -> None:
    images = np.concatenate([quadrants(150, seed=5).images, striped(quadrants(3, seed=6).images)])  # over one batch
    scores = fitted[peer.name].score(images)
    assert scores.shape == (153,)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 1
    assert np.allclose(scores[::-1], fitted[peer.name].score(images[::-1].copy()), rtol=1e-3, atol=1e-3)
    assert np.array_equal(peer.fit(material).score(images), scores)


@pytest.mark.parametrize("peer", INSTALLED, ids=lambda peer: peer.name)
def test_the_score_that_is_attacked_is_the_score_that_counts(peer: Peer, fitted: dict[str, Scorer]) -> None:
    scorer = fitted[peer.name]
    if not isinstance(scorer, TorchScorer):
        assert peer is SUBSET_SCANNING
        return
    images = quadrants(20, seed=5).images
    floats = from_8_bit(images).requires_grad_(True)
    scores = scorer(floats)
    assert np.allclose(scores.detach().numpy(), scorer.score(images), atol=1e-4)
    (gradient,) = torch.autograd.grad(scores.sum(), floats)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", [peer.name for peer in INSTALLED if peer.fit_data == "clean and PGD"])
def test_what_learns_from_attacks_finds_more_of_their_kind(name: str, fitted: dict[str, Scorer]) -> None:
    clean = quadrants(60, seed=7).images
    assert (auroc(fitted[name].score(striped(clean)), fitted[name].score(clean)) or 0) > 0.9


def test_too_few_attacks_that_fool_are_refused_by_all_that_need_them(material: Material) -> None:
    poor = replace(material, fooled=torch.zeros_like(material.fooled))
    for peer in INSTALLED:
        if peer.name in ("mahalanobis", "spectral", "lid"):
            with pytest.raises(Unfit, match="10 calibration images or more that PGD gets misread, got 0 of"):
                peer.fit(poor)


def test_noise_is_as_long_as_the_attack(material: Material) -> None:
    noise, attack = ((one - material.calm).flatten(1).norm(dim=1) for one in (material.noisy, material.attacked))
    assert torch.all(noise <= attack * 1.05)  # clipping shortens it
    assert noise.mean() > 0.6 * attack.mean()


def test_median_is_scipys() -> None:
    images = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = scipy.ndimage.median_filter(images.numpy(), size=(1, 1, 2, 2), mode="reflect")
    assert np.array_equal(median_2x2(images).numpy(), expected)


def test_fewer_bits_round_and_pass_the_gradient() -> None:
    images = torch.tensor([0.0, 0.2, 0.49, 0.51, 1.0], requires_grad=True)
    squeezed = fewer_bits(images, 1)
    assert squeezed.tolist() == pytest.approx([0, 0, 0, 1, 1])
    assert fewer_bits(images, 2).tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])
    squeezed.sum().backward()
    assert images.grad is not None
    assert images.grad.tolist() == [1.0] * 5


def test_squeezing_is_the_largest_move_of_the_answer(model: Classifier) -> None:
    images = quadrants(6, seed=8).images
    found = FeatureSqueezing(model, bits=1).score(images)
    for image, score in zip(images, found, strict=True):
        floats = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
        versions = [np.round(floats), scipy.ndimage.median_filter(floats, size=(1, 1, 2, 2), mode="reflect")]
        answer, *others = (model(torch.from_numpy(one)).softmax(dim=1)[0].numpy() for one in (floats, *versions))
        assert score == pytest.approx(max(np.abs(answer - other).sum() for other in others), abs=1e-5)


def test_magnitudes_are_numpys() -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = np.abs(np.fft.fft2(images.numpy())).reshape(2, -1)
    assert np.allclose(magnitudes(images).numpy(), expected, atol=1e-5)
    flat = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(magnitudes(flat).sum(), flat)[0]).all()


def test_regression_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    clean, attacked = random.normal(0, 1, (40, 3)), random.normal(0.5, 2, (30, 3))
    clean[:, 1], attacked[:, 1] = 7, 7  # a column that never varies
    rows = np.concatenate([clean, attacked])
    spread = rows.std(axis=0)
    scaled = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
    expected = LogisticRegression(max_iter=5_000).fit(scaled, [0] * 40 + [1] * 30).decision_function(scaled)
    found = Logistic.of(torch.from_numpy(clean), torch.from_numpy(attacked))(torch.from_numpy(rows))
    assert np.allclose(found.numpy(), expected)


def test_local_dimension_is_the_formula_and_finds_the_dimension() -> None:
    random = np.random.default_rng(0)
    rows, references = random.normal(size=(4, 6)), random.normal(size=(30, 6))
    found = local_dimension(torch.from_numpy(rows), torch.from_numpy(references), 5)
    for row, value in zip(rows, found.tolist(), strict=True):
        nearest = sorted(float(np.linalg.norm(row - other)) for other in references)[:5]
        assert value == pytest.approx(-1 / np.mean([np.log(r / nearest[-1]) for r in nearest]))
    for dimension in (2, 6):
        cube = torch.from_numpy(random.uniform(-1, 1, (5_000, dimension)))
        assert float(local_dimension(cube[:1] * 0, cube, 200)) == pytest.approx(dimension, rel=0.25)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (ModelConfig(name="small_cnn", width=4, depth=2), 5),
        (ModelConfig(name="resnet18", width=2, depth=2), 10),
        (ModelConfig(name="wide_resnet", width=1, depth=10), 4),
    ],
)
def test_layers_are_the_activations_and_the_heads_input(config: ModelConfig, count: int) -> None:
    net = build_model(config, 1, 8, 8, 3).eval()
    images = torch.rand(2, 1, 8, 8)
    layers = Layers(net)
    *maps, features = layers(images)
    assert len(maps) + 1 == count
    assert all(one.ndim == 4 for one in maps)
    assert torch.allclose(net.head(features), net(images))
    assert len(layers(images)) == count
    assert not any(module._forward_hooks for module in net.modules())


def test_distances_are_to_the_nearest_mean_under_the_shared_covariance(model: Classifier) -> None:
    clean = quadrants(60, seed=9)
    images = from_8_bit(clean.images)
    gaussians = LayerGaussians.fit(model, images, torch.from_numpy(clean.labels), 4)
    found = gaussians(images[:5])
    layers = [one.flatten(2).mean(dim=2) if one.ndim == 4 else one for one in Layers(model)(images)]
    assert found.shape == (5, len(layers))
    for k, layer in enumerate(layers):
        rows = layer.double().numpy()
        means = np.stack([rows[clean.labels == label].mean(axis=0) for label in range(4)])
        precision = (gaussians.whitenings[k] @ gaussians.whitenings[k].T).double().numpy()
        for i in range(5):
            distances = [(rows[i] - mean) @ precision @ (rows[i] - mean) for mean in means]
            assert float(found[i, k]) == pytest.approx(min(distances), rel=2e-3)


def test_the_librarys_network_on_features_sees_nothing_else(material: Material) -> None:
    scorer = BINARY_ACTIVATION.fit(material)
    assert isinstance(scorer, TorchScorer)
    images = quadrants(4, seed=5).images
    features = material.model.embed(from_8_bit(images))
    logits = scorer.net(features)
    assert np.allclose((logits[:, 1] - logits[:, 0]).detach().numpy(), scorer.score(images), atol=1e-4)


def test_fitting_leaves_the_global_generator_alone(material: Material) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    BINARY_INPUT.fit(material)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_image_without_small_p_values_is_not_suspicious_to_the_scan(material: Material) -> None:
    scorer = SUBSET_SCANNING.fit(material)
    low = quadrants(2, seed=5).images
    asked: list[int] = []

    class Stops:
        def detect(self, images: np.ndarray, batch_size: int) -> tuple[dict[str, np.ndarray], None]:
            asked.append(len(images))
            if images[0].max() == 0 or len(images) > 1:
                raise ValueError("attempt to get argmax of an empty sequence")
            return {"scores": np.full(len(images), 2.0)}, None

    scorer._detector = Stops()  # type: ignore[attr-defined]
    low[0] = 0
    assert scorer.score(low).tolist() == [0.0, 2.0]
    assert asked == [2, 1, 1]


def test_without_pytorch_ood_the_peer_says_so(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_ood.detector", None)
    with pytest.raises(Unfit, match="not installed: pip install pytorch-ood"):
        OOD_ENERGY.fit(material)


def test_with_pytorch_ood_its_scores_are_taken(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    class Energy:
        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def predict(self, images: Tensor) -> Tensor:
            return -torch.logsumexp(self.net(images), dim=1)

    for name in ("pytorch_ood", "pytorch_ood.detector"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["pytorch_ood.detector"], "EnergyBased", Energy, raising=False)
    images = quadrants(5, seed=5).images
    expected = -torch.logsumexp(material.model(from_8_bit(images)), dim=1)
    assert np.allclose(OOD_ENERGY.fit(material).score(images), expected.numpy())


def test_without_art_its_peers_say_so(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art.defences.detector", None)
    monkeypatch.delitem(sys.modules, "art.defences.detector.evasion", raising=False)
    with pytest.raises(Unfit, match="not installed: pip install adversarial-robustness-toolbox"):
        BINARY_INPUT.fit(material)
