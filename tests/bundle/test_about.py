"""What people should know about a model, read from Markdown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mla_serve.bundle.about import About, parse_about

TEXT = """# Purpose
Tells products apart.

## Do not use it for
1. medicine
2) gifts of 2020
- anything that is
  no product

## Data
| a | b |
|---|---|

### More on the data
Bought in 2020.

## License
CC BY 4.0
"""


def test_sections_are_told_apart_by_their_headings() -> None:
    assert parse_about(TEXT) == About(
        purpose="Tells products apart.",
        limits=["medicine", "gifts of 2020", "anything that is no product"],
        data="| a | b |\n|---|---|\n\n### More on the data\nBought in 2020.",
        licence="CC BY 4.0",
    )


def test_the_title_of_the_file_is_left_out() -> None:
    assert parse_about("# The model shop\n\n## Purpose\nSells.\n") == About(purpose="Sells.")
    assert parse_about("\n# Shop\nText\n# More\nText").data == "Text\n# More\nText"


def test_a_heading_in_a_code_block_is_text() -> None:
    text = "```\n# Purpose\n```"
    assert parse_about(text) == About(data=text)


@given(st.lists(st.from_regex(r"[a-z|*_ ]{0,20}", fullmatch=True)))
def test_text_without_headings_is_about_the_data(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert parse_about(text).data == text.strip()
