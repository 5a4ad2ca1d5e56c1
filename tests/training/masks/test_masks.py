"""Masks of every kind, by hand where that can be done."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.errors import SetupError
from training.attacks.rounding import from_8_bit
from training.data.types import DataSet, ImageSet
from training.masks import AttentionMasks, BoxMasks, Masks, PixelMasks, SegmentMasks, build_masks, read_masks
from training.masks.attention import beyond, check_maps, grad_cam, saliency
from training.masks.plain import centre_box
from training.masks.segment import foreground_probability
from training.methods_localized import LocalizedConfig
from training.models import Classifier, build_model
from training.network_digest import network_digest
from training.sections import ModelConfig


def image(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows)[None, None]


def network(seed: int = 0, channels: int = 1, name: str = "small_cnn", **config: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(ModelConfig(name=name, **config), channels, 8, 8, classes=4).eval()  # type: ignore[arg-type]


def draws(count: int, channels: int = 1, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, 8, 8, generator=generator)


def rows_of(masks: Tensor) -> list[list[int]]:
    return masks[0, 0].int().tolist()


def test_dark_pixels_are_background_and_the_level_itself_is_not() -> None:
    given = image([[0.0, 0.09, 0.1], [0.5, 0.0, 0.0]])
    assert rows_of(PixelMasks()(given)) == [[1, 1, 0], [0, 1, 1]]
    assert rows_of(PixelMasks(level=0.6)(given)) == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(("pixels", "dark"), [(0, 24), (1, 16), (2, 0)])
def test_a_digit_grows_by_pixels_diagonals_too(pixels: int, dark: int) -> None:
    given = torch.zeros(1, 1, 5, 5)
    given[0, 0, 2, 2] = 1
    assert PixelMasks(dilate=pixels)(given).sum() == dark


def test_a_pixel_is_dark_in_all_its_channels() -> None:
    given = torch.zeros(1, 3, 1, 2)
    given[0, 2, 0, 1] = 0.5
    assert rows_of(PixelMasks()(given)) == [[1, 0]]


def test_a_box_lies_in_the_middle() -> None:
    assert centre_box(4, 6, 0.5).int().tolist() == [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]
    assert centre_box(8, 8, 0.01).sum() == 1
    assert centre_box(8, 8, 1.0).all()
    assert BoxMasks(share=0.75)(torch.zeros(2, 3, 8, 8)).sum(dim=(1, 2, 3)).tolist() == [64 - 36] * 2


class Weighted(Classifier):
    """Two feature maps, the image and its mirror; the embedding is their means, the head [[w0, w1], [0, 0]]."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([list(weights), [0.0, 0.0]]))
            self.head.bias.copy_(torch.tensor([1.0, 0.0]))

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return (torch.cat([images, images.flip(3)], dim=1),)

    def embed(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[-1].mean(dim=(2, 3))


def test_grad_cam_by_hand() -> None:
    given = image([[0.0, 0.2], [0.4, 1.0]])
    # The class that is named is 0; its gradient by map k is w_k / 4 at each of the four places.
    assert torch.allclose(grad_cam(Weighted(2.0, 0.0), given), given[:, 0] * 2 / 4)
    mixed = (given - given.flip(3))[:, 0].clamp_min(0) / 4
    assert torch.allclose(grad_cam(Weighted(1.0, -1.0), given), mixed)
    assert grad_cam(Weighted(-0.5, 0.0), given).abs().max() == 0


def test_saliency_by_hand() -> None:
    given = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    # The logit's gradient is the same at every pixel, (2 + 1) / 9, and an average of equal values changes nothing.
    assert torch.allclose(saliency(Weighted(2.0, 1.0), given), torch.full((2, 3, 3), 3 / 9))


@pytest.mark.parametrize(("name", "config"), [("small_cnn", {}), ("wide_resnet", {"depth": 10}), ("resnet18", {})])
def test_maps_are_of_the_image_alone_and_leave_the_network_as_it_was(name: str, config: dict[str, int]) -> None:
    own = network(name=name, channels=3, width=2, **config).train()
    before = network_digest(own)
    for kind in (grad_cam, saliency):
        together = kind(own, draws(5, 3))
        assert together.shape == (5, 8, 8)
        assert together.min() >= 0
        assert torch.allclose(together[1:2], kind(own, draws(5, 3)[1:2]), rtol=1e-3, atol=1e-6)
    assert own.training
    assert network_digest(own) == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in own.parameters())
    check_maps(own, 3, 8, 8)


class Concealed(Weighted):
    """Its embedding has more to it than its maps."""

    def embed(self, images: Tensor) -> Tensor:
        return super().embed(images) + images.amax(dim=(1, 2, 3))[:, None]


def test_a_network_without_such_maps_is_refused() -> None:
    with pytest.raises(SetupError, match="got Concealed, which has no class activation maps; take saliency"):
        check_maps(Concealed(1.0, 0.0), 1, 8, 8)


def test_thresholds_by_hand() -> None:
    maps = torch.tensor([[[0.0, 1.0, 2.0, 3.0, 10.0]], [[4.0] * 5], [[0.0, 0.0, 0.0, 1.0, 2.0]]])
    assert beyond(maps, "median")[:, 0].int().tolist() == [[0, 0, 0, 1, 1], [0] * 5, [0, 0, 0, 1, 1]]
    assert beyond(maps, "deviation")[:, 0].int().tolist() == [[0, 0, 0, 0, 1], [0] * 5, [0, 0, 0, 0, 1]]


def test_a_mask_of_a_network_names_it() -> None:
    one, other = (AttentionMasks(kind="cam", owner=network(seed)) for seed in (0, 1))
    assert one.network == network_digest(network(0)) != other.network
    assert one.network in repr(one)
    assert not torch.equal(one(draws(8)), other(draws(8)))


def scene(seed: int) -> tuple[Tensor, Tensor]:
    """A red disc on green with noise, and where it is."""
    places = torch.arange(24) - 11.5
    disc = places[:, None] ** 2 + (places[None] + 1) ** 2 < 49
    noise = 0.08 * torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(seed))
    colours = torch.where(
        disc, torch.tensor([0.8, 0.2, 0.1])[:, None, None], torch.tensor([0.2, 0.6, 0.2])[:, None, None]
    )
    return (colours + noise).clamp(0, 1)[None], disc


def test_segments_find_a_disc_by_its_colour() -> None:
    for seed in range(3):
        given, disc = scene(seed)
        found = ~SegmentMasks(share=0.8)(given)[0, 0]
        assert (found == disc).float().mean() > 0.98


def test_what_the_foreground_encloses_belongs_to_it() -> None:
    given, disc = scene(0)
    given[0, :, 9:13, 9:12] = scene(1)[0][0, :, :4, :3]  # a patch of the green around it
    found = ~SegmentMasks(share=0.8)(given)[0, 0]
    assert foreground_probability(given, centre_box(24, 24, 0.8))[0, 9:13, 9:12].max() < 0.5
    assert found[9:13, 9:12].all()
    assert (found == disc).float().mean() > 0.98


def test_segments_are_of_each_image_alone_and_keep_to_the_box() -> None:
    several = torch.cat([scene(seed)[0] for seed in range(3)])
    masks = SegmentMasks(share=0.5)
    assert torch.equal(masks(several)[1:2], masks(several[1:2]))
    assert masks(several)[:, 0, ~centre_box(24, 24, 0.5)].all()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_segments_of_an_image_of_one_colour_are_something(value: float) -> None:
    found = SegmentMasks()(torch.full((1, 1, 8, 8), value))
    assert found.any()
    assert (~found).any()


def data_set(test: int = 2) -> DataSet:
    pixels = np.random.default_rng(0).integers(0, 256, (5 + test, 4, 4, 1)).astype(np.uint8)
    labels = (np.arange(5 + test) % 2).astype(np.int64)
    return DataSet(
        name="small",
        class_names=("a", "b"),
        train=ImageSet(images=pixels[:5], labels=labels[:5]),
        test=ImageSet(images=pixels[5:], labels=labels[5:]),
    )


def stored(path: Path, **arrays: np.ndarray) -> Path:
    made = {"train_masks": np.zeros((5, 4, 4), np.uint8), "test_masks": np.ones((2, 4, 4), bool)}
    np.savez(path, **{name: array for name, array in {**made, **arrays}.items() if array.size})  # type: ignore[arg-type]
    return path


def test_own_masks_are_found_by_the_image(tmp_path: Path) -> None:
    own = np.random.default_rng(1).integers(0, 2, (5, 4, 4)).astype(np.uint8)
    path, dataset = stored(tmp_path / "masks.npz", train_masks=own), data_set()
    masks = read_masks(path, dataset)
    assert np.array_equal(masks(from_8_bit(dataset.train.images[[3, 0]])).numpy()[:, 0], own[[3, 0]].astype(bool))
    assert masks(from_8_bit(dataset.test.images)).all()
    with pytest.raises(SetupError, match=r"masks\.npz: expected a mask of every image"):
        masks(from_8_bit(255 - dataset.train.images[:1]))
    assert repr(masks) == repr(read_masks(path, dataset))


def test_a_set_without_test_images_needs_no_masks_of_them(tmp_path: Path) -> None:
    path = stored(tmp_path / "masks.npz", test_masks=np.zeros(0))
    assert not read_masks(path, data_set(test=0))(from_8_bit(data_set(test=0).train.images)).any()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_masks": np.zeros(0)}, "expected the array train_masks, found test_masks"),
        ({"train_masks": np.zeros((5, 4, 3), np.uint8)}, r"train_masks: expected bool or uint8 \(5, 4, 4\)"),
        ({"train_masks": np.zeros((5, 4, 4), np.float32)}, "got float32"),
        ({"test_masks": np.full((2, 4, 4), 255, np.uint8)}, r"test_masks: expected 0 \(foreground\) and 1 .* got 255"),
    ],
    ids=["missing", "shape", "type", "values"],
)
def test_other_files_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        read_masks(stored(tmp_path / "masks.npz", **arrays), data_set())


@pytest.mark.parametrize("content", [None, b"", b"PK no zip"], ids=["missing", "empty", "damaged"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "masks.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SetupError, match=r"masks\.npz: expected an \.npz file of masks"):
        read_masks(path, data_set())


KINDS: dict[str, dict[str, object]] = {
    "pixels": {"pixel_level": 0.5},
    "box": {"box_share": 0.5},
    "segment": {},
    "saliency": {"threshold": "deviation"},
    "cam": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_built_and_tells_apart(kind: str) -> None:
    config = LocalizedConfig(mask=kind, **KINDS[kind])  # type: ignore[arg-type]
    masks: Masks = build_masks(config, network(), (8, 8, 1), None)
    found = masks(draws(4))
    assert (found.shape, found.dtype) == ((4, 1, 8, 8), torch.bool)
    assert 0 < found.float().mean() < 1
    assert torch.equal(found, masks(draws(4)))
    assert not masks.is_stored
    assert bool(masks.network) == (kind in ("cam", "saliency"))
    assert "0x" not in repr(masks)


def test_what_masks_need_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"localized\.run: .*nothing"):
        build_masks(LocalizedConfig(mask="cam", run=str(tmp_path / "nothing")), network(), (8, 8, 1), None)
    with pytest.raises(SetupError, match=r"localized\.file: expected the data set"):
        build_masks(LocalizedConfig(mask="file", file="x.npz"), network(), (8, 8, 1), None)
