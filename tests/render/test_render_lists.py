from __future__ import annotations

import json
from math import inf

import pytest

from normcheck.render import lists
from normcheck.render.lists import Entry, Listing

LONG = "a-name-that-is-quite-a-bit-longer-than-one-would-like-in-a-narrow-terminal"
WORDS = "plain words " * 12
ENTRIES = (
    Entry("first", {"size": 65504.0, "small": 6.103515625e-05, "flag": True, "title": WORDS, "of": ("a", "b")}),
    Entry(LONG, {"size": 1e308, "small": inf, "flag": False, "title": "short", "of": ()}),
)
LISTING = Listing(
    entries=ENTRIES,
    columns={"size": "largest", "small": "smallest\nnumber", "flag": "flag", "title": "what it is"},
    narrow=("size", "title"),
    note="a note",
)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_lists_keep_to_the_width_and_crop_nothing(width):
    text = lists.render(LISTING, width=width)
    assert max(map(len, text.splitlines())) <= width
    squeezed = "".join(text.split())
    assert LONG in squeezed
    assert "65504" in squeezed
    assert squeezed.endswith("anote")
    assert squeezed.count("words") == 12


def test_columns_that_do_not_fit_are_left_to_the_page():
    short = Listing(entries=(ENTRIES[0],), columns=LISTING.columns, narrow=LISTING.narrow)
    assert "smallest" in lists.render(short, width=120)
    assert "smallest" not in lists.render(short, width=45)


def test_pages_show_all_digits():
    text = lists.render_page(ENTRIES[0], width=80)
    assert [line.split()[0] for line in text.splitlines() if line[0] != " "] == [
        "name",
        "size",
        "small",
        "flag",
        "title",
        "of",
    ]
    assert "6.103515625e-5" in text
    assert "yes" in text
    assert "a, b" in text


def test_pages_of_parameters_are_readable():
    entry = Entry("x", {"parameters": [{"name": "df", "default": 4.0, "low": None}, {"name": "g", "default": 1.5}]})
    assert lists.render_page(entry, width=80).splitlines()[1:] == [
        "parameters  name df, default 4",
        "            name g, default 1.5",
    ]


def test_json_of_a_list_is_an_array_and_of_one_an_object():
    plain = json.loads(lists.render_json(*ENTRIES))
    assert [entry["name"] for entry in plain] == ["first", LONG]
    assert plain[1]["small"] == "inf"
    assert plain[0]["small"] == 6.103515625e-05
    assert json.loads(lists.render_json(ENTRIES[0], one=True)) == plain[0]
