"""The page in a browser: what its script does, and that it loads and runs nothing else. Skipped without chromium."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import shutil
from collections import Counter
from itertools import pairwise

import pytest
from hand_built_model import FILE, KEEP, MODEL
from hand_built_ranges import DOUBLE, PICTURED, WITH_RANGES, step
from large_reports import large_report
from test_render_gradients import BACKWARD
from test_render_html import HOSTILE, of_model

from normcheck.render import html
from normcheck.render.groups import grouped
from normcheck.render.places import concerns, worst_first
from normcheck.results import Exponents

MANY = 10_000
"""Layers of the large page; each has three results."""

QUICK = 2000
"""Milliseconds in which a page opens, and in which it filters, at most."""

FILTERING = """['7', 'fp16 nc', 'nowhere', ''].map((text) => {
    const start = performance.now();
    document.getElementById('filter').value = text;
    document.getElementById('filter').dispatchEvent(new Event('input', { bubbles: true }));
    document.body.offsetHeight;
    return performance.now() - start;
})"""
"""Milliseconds that some filters take, layout included."""


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("needs chromium (or Chrome) and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


class Opened:
    """A page that is open in the browser."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(url)

    def run(self, script, *arguments):
        return self.browser.execute_script(f"return {script}", *arguments)

    def all(self, selector):
        return self.run("[...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def one(self, selector):
        (text,) = self.all(selector)
        return text

    def click(self, selector):
        self.browser.find_element("css selector", selector).click()

    def type(self, text, selector="#filter"):
        self.browser.find_element("css selector", selector).send_keys(text)

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self):
        return self.run("document.activeElement.id || document.activeElement.textContent")

    def column(self, name):
        return self.all(f'tr.result > td[data-title="{name}"]')

    def sort(self, name):
        heads = self.browser.find_elements("css selector", "#table > thead button")
        next(head for head in heads if head.text.startswith(name)).click()

    def choose(self, name, text):
        from selenium.webdriver.support.ui import Select

        Select(self.browser.find_element("id", f"only-{name}")).select_by_visible_text(text)

    def each(self, selector, what):
        """Do something with each element."""
        self.run(f"document.querySelectorAll(arguments[0]).forEach((each) => {what})", selector)

    def requests(self):
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def show(browser, tmp_path):
    """Open a report's page; afterwards, see to it that the console stayed empty."""

    def opened(report):
        path = tmp_path / "page.html"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(html.pieces(report))
        return Opened(browser, path.as_uri())

    with metrics(browser):
        yield opened
    assert browser.get_log("browser") == []


@contextlib.contextmanager
def metrics(browser):
    """Whatever a test makes of the screen, the next one has it as it was."""
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def emulate(page, *, width=None, **features):
    if width is not None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})


ASKED = [result for result in worst_first(MODEL.results) if result.asked]


# ------------------------------------------------------------------------------------------------------ the table


def test_the_page_asks_for_nothing_but_itself(show):
    page = show(MODEL)
    page.click(".opens")
    assert {url.split(":")[0] for url in page.requests()} <= {"file", "data"}
    assert page.run("performance.getEntriesByType('resource').length") == 0


def test_results_that_were_asked_for_are_shown_the_worst_first(show):
    page = show(MODEL)
    assert page.one("#shown") == f"{len(ASKED)} of {len(MODEL.results)} results"
    assert page.column("layer") == [result.layer for result in ASKED]
    assert [text.split()[-1] for text in page.column("verdict")] == [result.verdict for result in ASKED]
    assert page.run("document.getElementById('asked').checked")
    page.click("#unasked")
    assert page.one("#shown") == f"{len(MODEL.results)} of {len(MODEL.results)} results"
    assert any("not asked for" in text for text in page.column("implementation"))


@pytest.mark.parametrize("name", ["bad rows", "deviation", "× ideal", "headroom"])
def test_figures_are_sorted_as_numbers_and_what_is_none_comes_last(show, name):
    odd = [
        dataclasses.replace(ASKED[0], headroom=dataclasses.replace(ASKED[0].headroom, overflow_bits=bits))
        for bits in (math.inf, math.nan, 100.0, -2.5, 9.75)
    ]
    page = show(dataclasses.replace(MODEL, results=(*ASKED, *odd)))

    def keys():
        first = [re.match(r"−?[\d.]+(e−?\d+)?(?=\D|$)", text) for text in page.column(name)]
        return [match and float(match[0].replace("−", "-")) for match in first]

    for direction in ("descending", "ascending"):
        page.sort(name)
        found = keys()
        numbers = [key for key in found if key is not None]
        assert len(set(numbers)) > 1
        assert numbers == sorted(numbers, reverse=direction == "descending")
        assert None not in found[: len(numbers)]
        assert page.run("document.querySelectorAll(`th[aria-sort='${arguments[0]}']`).length", direction) == 1


def test_no_safe_scale_is_the_least_and_one_that_nobody_looked_for_comes_last(show):
    page = show(with_safe_scales((0.0, 64.0), None, (0.5, 2.0)))
    page.click("#unasked")
    rising = ["none", "0.5 to 2", "0 to 64"]
    for direction, order in (("descending", [*rising[::-1], "–"]), ("ascending", [*rising, "–"])):
        page.sort("safe scale")
        assert page.column("safe scale") == order
        assert page.run("document.querySelectorAll(`th[aria-sort='${arguments[0]}']`).length", direction) == 1


def with_safe_scales(*scales):
    """A result for each safe scale, and one more of the view that nobody asked for."""
    beside = dataclasses.replace(ASKED[0], asked=False, safe_scale=None)
    asked = [dataclasses.replace(ASKED[0], safe_scale=scale) for scale in scales]
    return dataclasses.replace(MODEL, results=(*asked, beside), findings=())


def test_of_no_safe_scale_the_detail_says_so_only_where_one_was_looked_for(show):
    page = show(with_safe_scales(None))
    page.click("#unasked")
    page.each(".opens", "each.click()")
    none, unknown = page.all(".detail")
    assert "safe scalenone" in none
    assert "safe scale" not in unknown


@pytest.mark.parametrize(
    "name", ["layer", "norm", "precision", "implementation", "mode", "verdict", "rules", "overflow"]
)
def test_every_column_can_be_sorted_by(show, name):
    page = show(MODEL)
    before, orders = Counter(page.column(name)), []
    for _ in range(2):
        page.sort(name)
        orders.append(page.column(name))
        assert Counter(orders[-1]) == before
    changes = sum(a != b for a, b in pairwise(orders[0]))
    assert changes == len(before) - 1  # equal ones are together
    page.click("#worst")
    assert page.column("layer") == [result.layer for result in ASKED]


def test_text_filters_by_layer_rule_and_whatever_else_a_row_says(show):
    page = show(MODEL)
    page.type("LAYER3.0 nc103")
    assert page.column("layer") == ["layer3.0.bn1"]
    assert page.one("#shown") == f"1 of {len(MODEL.results)} results"
    from selenium.webdriver import Keys

    page.type(Keys.ESCAPE)
    assert len(page.column("layer")) == len(ASKED)


@pytest.mark.parametrize(
    ("typed", "layers"),
    [
        ("layer*.bn1", ("layers.0.bn1", "Layers.12.BN1", "layers[1].bn1")),
        ("layers.?.bn1", ("layers.0.bn1",)),
        ("layers.[1-9]*", ("layers.12.bn1x", "Layers.12.BN1")),
        ("layers.[!1]*", ("layers.0.bn1",)),
        ("bn1*", ()),
        ("*BN1 layers.1", ("Layers.12.BN1",)),
        ("*l*.*.*b*1", ("layers.0.bn1", "Layers.12.BN1")),
        (
            "**layers**1*",
            ("layers.0.bn1", "layers.12.bn1x", "Layers.12.BN1", "layers[1].bn1", "head.layers.0.bn1.norm"),
        ),
        ("*n*", ("layers.0.bn1", "layers.12.bn1x", "Layers.12.BN1", "layers[1].bn1", "head.layers.0.bn1.norm")),
        ("layers[1*", ("layers[1].bn1",)),
        ("*[9-0]*", ()),
        ("layers.*(1)+$", ()),
        ("layers[1]", ("layers[1].bn1",)),
        ("bn1x", ("layers.12.bn1x",)),
    ],
)
def test_a_word_with_a_star_or_a_question_mark_is_a_glob_of_the_whole_name(show, typed, layers):
    names = ("layers.0.bn1", "layers.12.bn1x", "Layers.12.BN1", "layers[1].bn1", "head.layers.0.bn1.norm")
    page = show(dataclasses.replace(MODEL, results=tuple(dataclasses.replace(ASKED[0], layer=n) for n in names)))
    page.type(typed)
    assert sorted(page.column("layer")) == sorted(layers)


def test_without_layers_a_glob_is_of_a_norm(show):
    page = show(WITH_RANGES)
    assert "*" in page.run("document.getElementById('filter').placeholder")
    assert "glob" in page.run("document.getElementById('filter').title")
    for typed, many in (("layer-*", 0), ("batch-*", 1)):
        page.run("(document.getElementById('filter').value = '') || undefined")
        page.type(typed)
        assert len(page.column("norm")) == many


def test_beside_each_box_stands_how_many_results_it_is_about(show):
    page = show(MODEL)

    def told():
        boxes = page.all("#verdicts label, #views label")
        return {text.strip(" ✕▲✓").rsplit(" ", 1)[0]: int(text.rsplit(" ", 1)[1]) for text in boxes}

    def counted(**what):
        chosen = [r for r in MODEL.results if all(getattr(r, name) == value for name, value in what.items())]
        verdicts = Counter(r.verdict for r in chosen if r.asked)
        views = Counter("asked for" if r.asked else "not asked for" for r in chosen)
        return {word: (verdicts | views)[word] for word in ("unsafe", "degraded", "ok", "asked for", "not asked for")}

    assert told() == counted()
    page.choose("mode", "eval")
    assert told() == counted(mode="eval") != counted()
    page.click("#verdicts input[value='2']")
    assert told()["ok"] == counted(mode="eval")["ok"]  # what ticking it again would show
    assert sum(told()[word] for word in ("unsafe", "degraded")) == len(page.column("layer")) == told()["asked for"]


def test_choices_filter_together_and_are_reset(show):
    page = show(MODEL)
    page.click("#verdicts input[value='2']")
    assert {text.split()[-1] for text in page.column("verdict")} == {"unsafe", "degraded"}
    page.choose("mode", "eval")
    assert set(page.column("mode")) == {"eval"}
    assert set(page.column("layer")) == {"layer3.0.bn2", "layer3.1.bn2"}
    page.choose("severity", "none")
    assert page.column("layer") == []
    page.click("#filters button[type='reset']")
    page.browser.execute_async_script("setTimeout(arguments[0], 20)")  # resetting takes effect after its event
    assert len(page.column("layer")) == len(ASKED)


def test_a_group_of_findings_shows_its_own_results_and_no_others(show):
    page = show(MODEL)
    page.each("details", "(each.open = true)")
    groups = grouped(MODEL)
    assert {group.asked for group in groups} == {True, False}
    for place, group in enumerate(groups):
        alike = [f for f in MODEL.findings if (f.rule, f.severity) == (group.rule, group.severity)]
        shown = [
            result
            for result in worst_first(MODEL.results)
            if result.asked == group.asked and any(concerns(finding, result) for finding in alike)
        ]
        if not shown:
            assert page.run("document.querySelectorAll('button.find')[arguments[0]].hidden", place), group.rule
            continue
        page.run("document.querySelectorAll('button.find')[arguments[0]].click()", place)
        assert page.column("layer") == [result.layer for result in shown], group.rule
        assert ["not asked for" in text for text in page.column("implementation")] == [not group.asked] * len(shown)
        assert page.run("document.getElementById('unasked').checked") != group.asked
        assert page.focused() == "only-rule"


def test_a_finding_of_the_view_that_nobody_asked_for_says_so_wherever_it_stands(show):
    page = show(MODEL)
    page.click("#unasked")
    page.each(".opens", "each.click()")
    only = "only if your runtime computes norms in fp16 itself (pure)"
    told = [(text.split()[-1], only in detail) for text, detail in zip(*columns_and_details(page), strict=True)]
    assert ("for", True) in told  # "not asked for"
    assert not any(condition for word, condition in told if word != "for")
    assert [text.lower() for text in page.all("#findings-section > h3")] == [only]


def columns_and_details(page):
    return page.column("implementation"), page.all(".detail")


def test_long_lists_are_shown_when_asked_for(show):
    page = show(MODEL)
    page.each("details", "(each.open = true)")
    assert len(page.all(".finding.note li")) < 23
    page.each("button.more", "each.click()")
    assert len(page.all(".finding.note li")) == 23
    assert {text for text in page.all(".finding.note .where") if "stem" in text} == {"stem.bn batch-l2"} | {
        text for text in page.all(".finding.note .where") if text.startswith("stem.bn batch-l2 fp16 pure")
    }


# --------------------------------------------------------------------------------------------------- the keyboard


def test_the_keyboard_is_enough(show):
    from selenium.webdriver import Keys

    page = show(MODEL)
    page.press("/")
    assert page.focused() == "filter"
    page.type("layer3")
    page.run("document.querySelector('.opens').focus()")
    page.press(Keys.ENTER)
    assert len(page.all(".detail")) == 1
    assert page.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.press(Keys.ARROW_DOWN)
    assert page.focused() == page.column("layer")[1]
    page.press(Keys.SPACE)
    assert len(page.all(".detail")) == 2
    page.press("k")
    assert page.focused() == page.column("layer")[0]
    page.press(Keys.ESCAPE)
    assert len(page.all(".detail")) == 1
    assert page.run("document.activeElement.getAttribute('aria-expanded')") == "false"


def test_tab_goes_through_the_page_in_its_order_and_the_focus_is_seen(show):
    from selenium.webdriver import Keys

    page = show(WITH_RANGES)
    seen = []
    for _ in range(40):
        page.press(Keys.TAB)
        width = page.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        seen.append(page.focused())
        assert width >= 1 or page.run("document.activeElement === document.body")
        if "batch-l2" in seen[-1]:
            break
    assert seen[0] == "Skip to the results"
    assert seen.index("filter") < seen.index("headroom") < seen.index("batch-l2")


# ---------------------------------------------------------------------------------------------------- the details


def test_a_detail_has_facts_steps_findings_deviation_and_worst_rows(show):
    report = dataclasses.replace(MODEL, results=(ASKED[0], dataclasses.replace(PICTURED, layer="stem.bn")))
    page = show(report)
    page.each(".opens", "each.click()")
    heads = page.all(".detail h3")
    both = ["Findings", "Result", "Layer", "Steps", "Deviation", "Worst channels"]
    assert sorted(heads) == sorted(both + [head for head in both if head != "Steps"])
    text = " ".join(page.all(".detail"))
    for facts in ("NC104", KEEP, "3 of 64 running variances are beyond float16", "16 channels of 512 elements", FILE):
        assert facts in text
    assert {"square", "float16", "1.049e6", "collapsed", "relative rms", "0.991"} <= set(page.all(".grid td"))


def test_the_picture_shades_the_zones_and_marks_what_is_beyond(show):
    page = show(WITH_RANGES)
    page.click(".opens")
    assert page.run("document.querySelector('.picture').getAttribute('role')") == "img"
    assert page.all(".picture .zone-name") == ["too small", "subnormal", "overflow"]
    assert len(page.all(".picture .zone")) == 3
    assert len(page.all(".picture .count")) == 7
    assert page.all(".picture .count title")[0] == "2^-7 to 2^-6: 1 elements"
    for kind in ("over", "subnormal", "lost"):
        assert page.all(f".picture .bar.{kind}"), kind
        fill = page.run("getComputedStyle(document.querySelector(`.picture .bar.${arguments[0]}`)).fill", kind)
        assert f"hatch-{kind}" in fill  # a pattern, not a colour alone
    assert {"overflow, too small", "infinite", "NaN", "all 0", "subnormal"} <= set(page.all(".picture .note"))
    assert page.all(".picture .headroom.name") == ["headroom −0.634 bits × 2"]
    told = page.one(".picture desc")
    assert told == page.one("figcaption")
    assert "square reaches 2^20, beyond fp16." in told
    assert "1 element is not finite." in told


IDLE = dataclasses.replace(step("idle", 0.0, 0.0), operations=0)


def test_a_step_that_rounds_nothing_is_not_drawn_as_zeros(show):
    page = show(
        dataclasses.replace(WITH_RANGES, results=(dataclasses.replace(PICTURED, steps=(*PICTURED.steps, IDLE)),))
    )
    page.click(".opens")
    assert page.all(".picture .note").count("no rounding") == 1
    assert page.all(".picture .note").count("all 0") == 1
    assert len(page.all(".picture .track")) == len(PICTURED.steps) - 1  # one has a format whose range is not known
    said = page.one("figcaption")
    assert "All 0: reciprocal. No rounding: idle." in said
    (row,) = [cells for cells in map(str.split, page.run(ROWS)) if cells[0] == "idle"]
    assert row == ["idle", "float16", "1", "0", *"–" * 10]


ROWS = "[...document.querySelectorAll('.grid tbody tr')].map((e) => [...e.cells].map((c) => c.textContent).join(' '))"

OUTSIDE = """[...document.querySelectorAll('.picture')].flatMap((svg) => {
    const all = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text, rect, path, line')].filter((each) => {
        const one = each.getBoundingClientRect();
        const inside = one.left > all.left - 1 && one.right < all.right + 1;
        return !(inside && one.top > all.top - 1 && one.bottom < all.bottom + 1);
    }).map((each) => each.outerHTML.slice(0, 200));
})"""
"""What goes beyond the edge of its picture by a pixel or more."""

CROSSING = """[...document.querySelectorAll('.picture')].flatMap((svg) => {
    const texts = [...svg.querySelectorAll('text')].map((each) => [each.textContent, each.getBoundingClientRect()]);
    const common = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);
    const cross = (a, b) => common(a, b, 'left', 'right') > 1 && common(a, b, 'top', 'bottom') > 6;
    return texts.flatMap(([one, a], place) =>
        texts.slice(place + 1).filter(([, b]) => cross(a, b)).map(([other]) => [one, other]));
})"""
"""Texts of a picture that stand on each other; lines may be nearer than their boxes are high."""

WIDE = dataclasses.replace(PICTURED.input, exponents=Exponents(lowest=-1074, counts=(1,) * 2098))
LONG = step("a-step-with-quite-a-name", 2.0**-30, math.inf, degree=2, form="float8_e4m3fnuz")
OF_ALL_KINDS = (
    dataclasses.replace(PICTURED, steps=(*PICTURED.steps, IDLE)),
    dataclasses.replace(PICTURED, steps=(*PICTURED.steps, LONG)),
    dataclasses.replace(PICTURED, input=WIDE),
    dataclasses.replace(PICTURED, precision=DOUBLE.label, steps=PICTURED.steps[:2]),
    dataclasses.replace(PICTURED, precision="unknown"),
)


@pytest.mark.parametrize("width", [360, 400, 480, 599, 640, 700, 760, 900, 1024, 1300, 1600])
def test_nothing_of_a_picture_is_cut_off_at_its_edge(show, width):
    page = show(dataclasses.replace(WITH_RANGES, results=OF_ALL_KINDS))
    emulate(page, width=width)
    page.each(".opens", "each.click()")
    assert len(page.all(".picture")) == len(OF_ALL_KINDS)
    assert page.run(OUTSIDE) == []
    assert page.run(CROSSING) == []
    assert {"overflow, too small", "no rounding", "infinite, too small"} & set(page.all(".picture .note"))


@pytest.mark.parametrize("width", [360, 1300])
def test_a_name_without_end_is_shortened_in_the_picture_alone(show, width):
    page = show(of_model(HOSTILE))
    emulate(page, width=width)
    page.click(".opens")
    assert page.run(OUTSIDE) == []
    assert "x…" in " ".join(page.all(".picture text"))
    assert HOSTILE[-1] in page.all(".grid td")


def test_zones_are_where_the_format_says(show):
    page = show(WITH_RANGES)
    page.click(".opens")
    boxes = page.run(
        "[...document.querySelectorAll('.picture .zone')].map((e) => [e.x.baseVal.value, e.width.baseVal.value])"
    )
    (small, small_width), (subnormal, subnormal_width), (over, over_width) = boxes
    panel = page.run(
        "(({ x, width }) => [x.baseVal.value, width.baseVal.value])(document.querySelector('.picture .panel'))"
    )
    assert small == panel[0]
    assert small + small_width == pytest.approx(subnormal)
    assert over + over_width == pytest.approx(sum(panel))
    assert (over - subnormal) / subnormal_width == pytest.approx(4.0, abs=0.01)  # 2^-24 to 2^16 over 2^-24 to 2^-14


@pytest.mark.parametrize(
    ("exponents", "says"),
    [
        (None, "was not kept"),
        (Exponents(lowest=0, counts=(), zeros=9), "No element of the input is finite and not zero. 9 elements are 0."),
        (Exponents(lowest=-1074, counts=(1,) * 2098), "from 2^−1074 to 2^1024"),
        (Exponents(lowest=300, counts=(5,)), "from 2^300 to 2^301"),
    ],
)
@pytest.mark.parametrize("formats", [WITH_RANGES.formats, ()])
def test_the_picture_bears_whatever_comes(show, exponents, says, formats):
    result = dataclasses.replace(PICTURED, input=dataclasses.replace(PICTURED.input, exponents=exponents))
    page = show(dataclasses.replace(WITH_RANGES, results=(result,), formats=formats))
    page.click(".opens")
    assert says in page.one("figcaption")
    drawn = page.run("document.querySelector('.picture').outerHTML")
    assert not re.findall(r"NaN(?!<)|Infinity|undefined", drawn)


# ------------------------------------------------------------------------------------------------------- the looks


def test_dark_and_light_follow_the_system_and_the_button(show):
    page = show(MODEL)
    back = "getComputedStyle(document.body).backgroundColor"
    emulate(page, prefers_color_scheme="light")
    light = page.run(back)
    emulate(page, prefers_color_scheme="dark")
    dark = page.run(back)
    assert light == "rgb(255, 255, 255)"
    assert dark == "rgb(20, 24, 28)"
    page.click("#theme")
    assert page.run(back) == light
    page.click("#theme")
    assert page.run(back) == dark


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("report", [MODEL, WITH_RANGES, of_model(HOSTILE)], ids=["model", "ranges", "hostile"])
def test_nothing_is_wider_than_the_screen(show, width, report):
    page = show(report)
    emulate(page, width=width)
    page.each(".opens", "each.click()")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("Math.max(...[...document.querySelectorAll('.picture')].map((e) => e.clientWidth), 0)") <= width


def test_copying_selects_the_text_where_it_cannot_copy(show):
    page = show(MODEL)
    page.run("(document.execCommand = () => false) && undefined")
    page.click("button.copy")
    assert page.one("button.copy") == "selected: press Ctrl+C"
    assert page.run("String(getSelection())").strip() == MODEL.advice[0].snippet.strip()


def test_printing_opens_what_is_folded(show):
    page = show(MODEL)
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("[...document.querySelectorAll('details')].every((each) => each.open)")


# -------------------------------------------------------------------------------------------- hostile, and large


def test_hostile_names_do_nothing(show):
    page = show(of_model(HOSTILE))
    page.each("details", "(each.open = true)")
    page.each(".opens, button.more", "each.click()")
    assert page.run("'hacked' in window") is False
    assert len(page.all(".detail")) == len(HOSTILE)
    assert page.all("main img, main script, main svg[onload], main iframe") == []
    shown = page.column("layer")
    page.type("*x*x*x*x*x*x*x*y")
    assert page.column("layer") == []
    assert HOSTILE[0] in shown
    assert r"\u202egnirts\u2066\u200f\u2028\u2029\ufeff" in shown
    assert "x" * 10_000 in shown


def test_a_large_page_opens_and_filters_in_two_seconds(show):
    page = show(large_report(MANY))
    opened, filtered = [], []
    for _ in range(3):  # the best of three: other tests run at the same time
        page.browser.refresh()
        assert len(page.column("layer")) == 100
        filtered.append(max(page.run(FILTERING)))
        opened.append(page.run("performance.getEntriesByType('navigation')[0].loadEventEnd"))  # 0 before it has ended
    assert 0 < min(opened) < QUICK
    assert 0 < min(filtered) < QUICK
    assert page.one("#shown").endswith(f" of {3 * MANY} results")
    page.click("#further")
    assert len(page.column("layer")) == 200


def test_a_detail_has_the_backward_pass_where_there_is_one(show):
    plain, other = ASKED[:2]
    page = show(dataclasses.replace(MODEL, results=(dataclasses.replace(plain, backward=BACKWARD), other)))
    page.each(".opens", "each.click()")
    heads = page.all(".detail h3")
    assert (heads.count("Backward"), heads.count("Steps of the backward pass")) == (1, 1)
    assert heads.count("Result") == 2
    text = " ".join(page.all(".detail"))
    for fact in ("321 of 8190 (3.92%)", "2^-3 to 2^9", "16 sums over 512 elements in float16"):
        assert fact in text
    assert "grad-normalize" in page.all(".grid td")
