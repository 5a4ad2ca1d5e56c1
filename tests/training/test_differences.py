from training.config import load_recipe, recipe_values
from training.differences import differences


def test_values_are_spelled_as_in_a_recipe() -> None:
    expected = load_recipe("digits", ["train.flip=true", 'tla.kinds=["own"]', "data.set=mnist"])
    got = load_recipe("digits", ["train.learning_rate=1e-7"])
    rate = expected.train.learning_rate
    assert differences(recipe_values(expected), recipe_values(got)).split(", ") == [
        'data.set = "digits" (expected "mnist")',
        f"train.learning_rate = 1e-07 (expected {rate})",
        "train.flip = false (expected true)",
        'tla.kinds = ["other"] (expected ["own"])',
    ]


def test_equal_values_are_no_difference() -> None:
    values = recipe_values(load_recipe("digits"))
    assert differences(values, dict(values)) == ""


def test_nine_differences_are_eight_and_one_more() -> None:
    expected = {f"class {label}": "a" for label in range(9)}
    got = {f"class {label}": "b" for label in range(9)}
    told = differences(expected, got)
    assert told.count("expected") == 8
    assert told.endswith('class 7 = "b" (expected "a"), and 1 more')
    del expected["class 8"]
    assert "more" not in differences(expected, got | {"class 8": "a", "class 0": "a"})


def test_what_one_side_lacks_is_none() -> None:
    assert differences({"class 0": "a"}, {"class 0": "a", "class 1": "b"}) == 'class 1 = "b" (expected none)'
    assert differences({"class 1": "b"}, {}) == 'class 1 = none (expected "b")'
