from pathlib import Path

import pytest

from service.errors import SetupError
from training.config import load_recipe, recipe_from_dict, recipe_to_dict, recipe_to_toml

SMALLEST = """
[data]
set = "digits"
train = 850
fit = 200
calibration = 200
fusion = 199
[train]
epochs = 2
[attack]
eps = "8/255"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    return path


def test_defaults_fill_what_a_recipe_leaves_out(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.attack.eps == 8 / 255
    assert (recipe.model.name, recipe.tla.weight, recipe.train.batch_size) == ("small_cnn", 0.0, 128)


def test_overrides_are_toml_and_bare_words_are_strings(path: Path) -> None:
    recipe = load_recipe(
        path, ["train.epochs=7", "attack.name=n_fgsm", 'tla.kinds=["own"]', "attack.eps=1", "tla.weight=2"]
    )
    assert (recipe.train.epochs, recipe.attack.name, recipe.tla.kinds) == (7, "n_fgsm", ("own",))
    assert isinstance(recipe.attack.eps, float)
    assert recipe.tla.weight == 2.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", r"train\.epoch: unknown key.*train\.epochs"),
        ("trian.epochs=3", r"trian: unknown section.*train"),
        ("foo.bar=2", r"^foo: unknown section; expected one of data, model, train, attack, tla, .*, export$"),
        ("data.colour=2", r"^data\.colour: unknown key; expected one of set, train, selection, .*, seed$"),
        ("train.epochs=many", r"train\.epochs: expected a whole number, got 'many'"),
        ("train.epochs=2.5", r"train\.epochs: expected a whole number, got 2\.5"),
        ("train.epochs=true", r"train\.epochs: expected a whole number, got True"),
        ("train.epochs=0", r"train\.epochs: expected a number of at least 1, got 0"),
        ("train.learning_rate=nan", r"train\.learning_rate: expected a number above 0, got nan"),
        ("train.max_minutes=inf", r"train\.max_minutes: expected a number of at least 0, got inf"),
        ("train.label_smoothing=nan", r"train\.label_smoothing: expected a number in \[0, 1\)"),
        ("train.optimiser=lion", r"train\.optimiser: expected one of sgd, adam, got 'lion'"),
        ("attack.eps=nan", r"attack\.eps: expected a number above 0, got nan"),
        ("attack.eps=8", r"attack\.eps: expected at most 1 for norm linf, got 8"),
        ("attack.eps=8/0", r"attack\.eps: expected a number or a fraction such as 8/255, got '8/0'"),
        ("attack.eps=true", r"attack\.eps: expected a number, got True"),
        ("tla.kinds=[]", r"tla\.kinds: expected at least one of own, other"),
        ('tla.kinds=["own", "own"]', r"tla\.kinds: expected each kind once"),
        ('tla.kinds=["mine"]', r"tla\.kinds: expected one of own, other, got 'mine'"),
        ("tla.kinds=own", r"tla\.kinds: expected a list, each one of own, other"),
        ("data.calibration=0", r"data\.calibration: expected a number of at least 1, got 0"),
        ("train.flip=1", r"train\.flip: expected true or false, got 1"),
        ("attack.first_steps=11", r"attack\.first_steps: expected at most attack\.steps, got 11"),
        ("sar.start_epoch=99", r"sar\.start_epoch: expected less than train\.epochs, \d+, got 99"),
        ("attack.warmup_epochs=99.5", r"attack\.warmup_epochs: expected less than train\.epochs, \d+, got 99\.5"),
        ("sar.weight=-1", r"sar\.weight: expected a number of at least 0, got -1"),
        ("sar.form=mean", r"sar\.form: expected one of per_sample, batch2d, got 'mean'"),
        ("averaging.decay=1", r"averaging\.decay: expected a number in \[0, 1\), got 1"),
        ("train.seed=99999999999999999999", r"train\.seed: expected a number below 2\^60, got 9{20}"),
        ("model.stem_stride=3", r"model\.stem_stride: expected one of 1, 2, got 3"),
        ("epochs=3", r"override 'epochs=3': expected section\.key=value in one word, such as train\.epochs=5"),
        ("train.epochs", r"override 'train\.epochs': expected section\.key=value"),
    ],
)
def test_a_wrong_override_is_refused_by_name(path: Path, override: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        load_recipe(path, [override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["tla.switched=true"],
            r"tla\.switched: expected tla\.weight to be above 0, .* got 0\.0; set tla\.weight too, or",
        ),
        (["awp.weight=0.01", "sar.form=batch2d"], r"sar\.form: expected sar\.weight to be above 0"),
        (["averaging.decay=0.9"], r'averaging\.decay: expected averaging\.kind to be ema, .* got "none"'),
        (["averaging.start_epoch=1"], r"averaging\.start_epoch: expected averaging\.kind to be swa or ema"),
        (["attack.guard_steps=5"], r"attack\.guard_steps: expected attack\.guard to be true, .* got false"),
    ],
)
def test_an_override_without_effect_is_refused(path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(SetupError, match=f"^{message}"):
        load_recipe(path, overrides)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("gtsrb-at", "attack.steps=20", r'attack\.steps: expected attack\.name to be pgd, .* got "n_fgsm"'),
        ("cifar10-sar", "averaging.decay=0.9", r'averaging\.decay: expected averaging\.kind to be ema, .* got "swa"'),
    ],
)
def test_an_override_without_effect_on_a_recipe_is_refused(name: str, override: str, message: str) -> None:
    with pytest.raises(SetupError, match=f"^{message}"):
        load_recipe(name, [override])


def test_a_file_that_forgets_a_weight_is_refused(path: Path) -> None:
    path.write_text(f"{SMALLEST}[tla]\nmargin = 0.3\n", encoding="utf-8")
    with pytest.raises(SetupError, match=r"^tla\.margin: expected tla\.weight to be above 0"):
        load_recipe(path)
    assert load_recipe(path, ["tla.weight=0.5"]).tla.margin == 0.3


def test_a_method_may_be_switched_off_beside_its_other_keys(path: Path, tmp_path: Path) -> None:
    path.write_text(f"{SMALLEST}[tla]\nweight = 0.0\nmargin = 0.3\n", encoding="utf-8")
    assert load_recipe(path).tla.weight == 0
    assert load_recipe("gtsrb-tla-sar", ["tla.weight=0", "averaging.kind=none"]).tla.margin == 0.3
    assert load_recipe("gtsrb-at", ["attack.name=none", "attack.guard=false"]).attack.warmup_epochs == 1
    whole = tmp_path / "whole.toml"
    whole.write_text(recipe_to_toml(load_recipe("gtsrb-at")), encoding="utf-8")
    assert load_recipe(whole) == load_recipe("gtsrb-at")
    with pytest.raises(SetupError, match=r"^tla\.pool: expected tla\.weight to be above 0"):
        load_recipe(whole, ["tla.pool=16"])


@pytest.mark.parametrize("section", ["sar", "pairing", "trades"])
def test_a_term_between_clean_and_attacked_needs_an_attack(path: Path, section: str) -> None:
    with pytest.raises(
        SetupError, match=rf'{section}\.weight: expected 0 with attack\.name = "none", got 0\.5; it compares clean with'
    ):
        load_recipe(path, ["attack.name=none", f"{section}.weight=0.5"])


def test_growing_steps_are_of_pgd_alone(path: Path) -> None:
    with pytest.raises(SetupError, match=r"attack\.first_steps: expected 0 for n_fgsm, got 2"):
        load_recipe(path, ["attack.name=n_fgsm", "attack.first_steps=2"])


def test_a_missing_key_is_named(path: Path) -> None:
    path.write_text(SMALLEST.replace('eps = "8/255"', ""), encoding="utf-8")
    with pytest.raises(SetupError, match=r"attack\.eps: expected a value, got none"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["train = 3", "[train", "\xff"], ids=["no table", "no toml", "no utf-8"])
def test_a_broken_recipe_is_refused(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SetupError, match="expected"):
        load_recipe(path)


def test_an_override_into_no_table_is_refused(path: Path) -> None:
    path.write_text("train = 3", encoding="utf-8")
    with pytest.raises(SetupError, match="train: expected a table"):
        load_recipe(path, ["train.epochs=3"])


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(SetupError, match=r"recipe nowhere: expected a TOML file or one of"):
        load_recipe("nowhere")


def test_a_recipe_survives_toml_and_tables(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        path,
        ["train.learning_rate=1e-7", "attack.eps=0.1", "tla.weight=1", 'tla.kinds=["other"]', "export.version=βeta 😀"],
    )
    again = tmp_path / "again.toml"
    again.write_text(recipe_to_toml(recipe), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
