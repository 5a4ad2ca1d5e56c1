"""The page of recipe keys follows from the code."""

import dataclasses

from deploy import recipe_keys
from training.config import SECTIONS


def test_the_committed_page_is_what_the_script_makes() -> None:
    text = recipe_keys.PAGE.read_text("utf-8")
    assert recipe_keys.page(text) == text


def test_the_page_has_every_key_with_a_meaning_or_a_plain_name() -> None:
    found = {key for source in recipe_keys.SOURCES for key, _, _ in recipe_keys.keys(source.read_text("utf-8"))}
    assert found == {f"{name}.{field.name}" for name, kind in SECTIONS.items() for field in dataclasses.fields(kind)}
