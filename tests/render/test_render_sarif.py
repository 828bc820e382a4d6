"""SARIF: valid, complete, stable from run to run, and able to be shown by code hosts."""

from __future__ import annotations

import dataclasses
import json
import re
from math import inf
from pathlib import Path

import jsonschema
import pytest
from hand_built import EMPTY, REPORT
from hand_built_diff import AGAINST, DIFF
from hand_built_model import MODEL, NO_NORMS
from hand_built_rules import RULES, with_rules

from normcheck.render import sarif
from normcheck.results import SEVERITIES, Measure, Skipped

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
REPORTS = {"simulate": REPORT, "empty": EMPTY, "analyze": MODEL, "no norms": NO_NORMS, "diff": DIFF, "against": AGAINST}


def fail(token):
    raise AssertionError(f"{token} is no JSON")


def run_of(report):
    return json.loads(sarif.render(report), parse_constant=fail)["runs"][0]


def only(report, place=0):
    """The report with one of its findings."""
    return dataclasses.replace(report, findings=report.findings[place : place + 1])


def changed(report, **changes):
    return dataclasses.replace(report, findings=tuple(dataclasses.replace(f, **changes) for f in report.findings))


def prints(report):
    return [result["partialFingerprints"]["normcheck/v1"] for result in run_of(report)["results"]]


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("with_facts", [with_rules, lambda report: report], ids=["rules", "no rules"])
def test_every_report_is_valid(name, with_facts):
    log = json.loads(sarif.render(with_facts(REPORTS[name])), parse_constant=fail)
    jsonschema.Draft4Validator(SCHEMA).validate(log)


def test_the_schema_refuses_what_is_not_valid():
    log = json.loads(sarif.render(MODEL))
    log["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError, match="fatal"):
        jsonschema.Draft4Validator(SCHEMA).validate(log)


@pytest.mark.parametrize("name", ["simulate", "empty", "analyze", "diff", "against"])
def test_each_finding_is_one_result_and_the_most_severe_come_first(name):
    report = REPORTS[name]
    levels = [result["level"] for result in run_of(report)["results"]]
    counts = {level: levels.count(level) for level in SEVERITIES}
    assert counts == dataclasses.asdict(report.summary.findings)
    assert counts == run_of(report)["properties"]["summary"]["findings"]
    assert levels == sorted(levels, key=SEVERITIES.index)


def test_rules_say_what_why_and_how_to_mend_it():
    collapse, deviation = run_of(with_rules(MODEL))["tool"]["driver"]["rules"]
    assert (collapse["id"], collapse["name"]) == ("NC102", "SilentCollapse")
    assert collapse["shortDescription"]["text"] == RULES[0].title
    assert collapse["fullDescription"]["text"] == f"Fires when {RULES[0].detects}. {RULES[0].why}"
    assert deviation["fullDescription"]["text"] == RULES[1].why  # as in reports of older versions
    assert collapse["defaultConfiguration"]["level"] == "error"
    for text in collapse["help"].values():
        assert RULES[0].why in text
        assert RULES[0].fix in text
        assert RULES[0].documentation in text
    assert "low-precision" in collapse["properties"]["tags"]
    assert deviation["helpUri"] == RULES[1].documentation


def test_a_path_is_no_address_of_help():
    assert "helpUri" not in run_of(with_rules(MODEL))["tool"]["driver"]["rules"][0]


def test_results_name_their_rule_by_code_and_by_place():
    run = run_of(with_rules(MODEL))
    indexed = [result for result in run["results"] if "ruleIndex" in result]
    assert {result["ruleId"] for result in indexed} == {"NC102", "NC301"}
    assert all(run["tool"]["driver"]["rules"][r["ruleIndex"]]["id"] == r["ruleId"] for r in indexed)


def test_the_message_says_where_what_and_how_to_mend_it():
    text = run_of(only(MODEL, -8))["results"][0]["message"]["text"]
    finding = MODEL.findings[-8]
    assert text == (
        f"{finding.layer} batch-l2 fp16 wide: {finding.message} (rests on an assumption). Fix: {finding.fix}"
    )


def test_a_result_is_in_the_file_of_its_layer_on_a_line_as_code_hosts_ask():
    for result in run_of(MODEL)["results"]:
        if result["ruleId"] == "NC404":
            continue
        (location,) = result["locations"]
        assert location["physicalLocation"] == {"artifactLocation": {"uri": "resnet.pt"}, "region": {"startLine": 1}}
        (logical,) = location["logicalLocations"]
        assert logical["kind"] == "module"
        assert logical["fullyQualifiedName"] == logical["name"]


def test_a_simulation_is_in_no_file():
    assert all("locations" not in result for result in run_of(REPORT)["results"])


def test_what_was_skipped_is_in_the_only_file():
    alone = dataclasses.replace(MODEL, settings={"models": ["resnet.pt"]})
    skipped = [result for result in run_of(alone)["results"] if result["ruleId"] == "NC404"]
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in skipped}
    assert (len(skipped), uris) == (2, {"resnet.pt"})


def test_of_several_files_the_one_that_begins_a_tensors_name_is_taken():
    skipped = dataclasses.replace(MODEL.findings[-12], layer="b/model.pt:head.scale", rule="NC404")
    report = dataclasses.replace(
        MODEL, findings=(skipped,), layers=(), settings={"models": ["runs/a/model.pt", "runs/b/model.pt"]}
    )
    (location,) = run_of(report)["results"][0]["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "runs/b/model.pt"


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("resnet.pt", "resnet.pt"),
        ("models/a b.pt", "models/a%20b.pt"),
        ("models\\win.pt", "models/win.pt"),
        ("./here.pt", "here.pt"),
        ("../there.pt", "../there.pt"),
        ("/models/abs.pt", "file:///models/abs.pt"),
        ("C:\\models\\abs.pt", "file:///C:/models/abs.pt"),
        ("pkg.module:factory", "pkg.module%3Afactory"),
        ("größe#1?.pt", "gr%C3%B6%C3%9Fe%231%3F.pt"),
        ("caf\udce9.pt", "caf%5Cudce9.pt"),
    ],
)
def test_paths_are_references_of_uris(path, uri):
    assert sarif.uri(path) == uri


def test_fingerprints_do_not_change_with_what_may_change_from_run_to_run():
    moved = dataclasses.replace(
        MODEL,
        layers=tuple(dataclasses.replace(layer, file=f"/elsewhere/{layer.file}") for layer in MODEL.layers),
        settings={**MODEL.settings, "models": ["/elsewhere/resnet.pt"]},
        findings=MODEL.findings[::-1],
    )
    measure = Measure(name="deviation.relative_rms", value=1.0, limit=2.0, worse="higher", unit="ratio")
    moved = changed(moved, message="17 of 64", fix="other", severity="warning", assumed=True, measure=measure)
    assert sorted(prints(moved)) == sorted(prints(MODEL))


@pytest.mark.parametrize("field", ["layer", "norm", "precision", "implementation", "params", "mode", "rule", "step"])
def test_fingerprints_tell_apart_whatever_a_finding_is_about(field):
    assert prints(changed(only(MODEL), **{field: "other"})) != prints(only(MODEL))


def test_fingerprints_of_alike_findings_are_numbered():
    twice = dataclasses.replace(MODEL, findings=(MODEL.findings[0],) * 2)
    first, second = prints(twice)
    assert (first.partition(":")[0], first[-2:], second[-2:]) == (second.partition(":")[0], ":1", ":2")
    assert len(set(prints(MODEL))) == len(MODEL.findings)


def test_fingerprints_are_those_that_github_reads():
    for result in run_of(MODEL)["results"]:
        assert result["partialFingerprints"]["primaryLocationLineHash"] == result["partialFingerprints"]["normcheck/v1"]


def test_against_a_baseline_results_say_whether_they_are_new_or_worse():
    states = {(r["ruleId"], r["baselineState"]) for r in run_of(AGAINST)["results"]}
    assert states == {("NC102", "new"), ("NC103", "new"), ("NC301", "updated")}
    assert all("baselineState" not in result for result in run_of(MODEL)["results"])


def test_figures_that_are_not_finite_are_strings():
    measure = Measure(name="rows.bad", value=inf, limit=0.0, worse="higher", unit="rows")
    (result,) = run_of(changed(only(MODEL), measure=measure))["results"]
    assert result["properties"]["measure"]["value"] == "inf"


def test_properties_are_what_the_finding_was_found_with():
    properties = run_of(only(DIFF))["results"][0]["properties"]
    assert {name: properties[name] for name in ("norm", "precision", "implementation", "params", "mode", "step")} == {
        "norm": "batch-l2",
        "precision": "fp16",
        "implementation": "wide",
        "params": "half",
        "mode": "eval",
        "step": "load",
    }


def test_the_invocation_tells_what_could_not_be_read_and_what_was_skipped():
    (invocation,) = run_of(MODEL)["invocations"]
    assert invocation["executionSuccessful"] is False
    notices = [(notice["level"], notice["message"]["text"]) for notice in invocation["toolExecutionNotifications"]]
    assert notices[0] == ("error", "broken.pt: the archive ends early; download it again")
    assert [level for level, _ in notices[1:]] == ["note"] * 3
    assert run_of(REPORT)["invocations"][0]["executionSuccessful"] is True


@pytest.mark.parametrize(
    ("models", "category"),
    [
        (["resnet.pt"], "normcheck/analyze/resnet.pt/"),
        (["/models/a.pt", "b.pt", "c.pt"], "normcheck/analyze/models/a.pt and 2 more/"),
    ],
)
def test_analyses_of_different_models_are_of_different_categories(models, category):
    report = dataclasses.replace(MODEL, settings={"models": models}, layers=())
    assert run_of(report)["automationDetails"]["id"] == category
    assert run_of(REPORT)["automationDetails"]["id"] == "normcheck/simulate/"


def test_no_name_is_a_link_or_a_placeholder_of_a_message():
    hostile = changed(only(MODEL), layer="[click](https://evil.example) {0}")
    text = run_of(hostile)["results"][0]["message"]["text"]
    assert "[click\\](" in text
    assert "{{0}}" in text
    assert not re.search(r"[^\\]\]\(", text)


def test_what_was_skipped_says_so_once():
    report = dataclasses.replace(EMPTY, skipped=(Skipped(name="a.pt", reason="a.pt: no norms"),))
    (notice,) = run_of(report)["invocations"][0]["toolExecutionNotifications"]
    assert notice["message"]["text"] == "a.pt: no norms"
