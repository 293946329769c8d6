"""Verdicts of an audit, from figures alone: what is said for which figures, and never more than they support."""

import copy

import numpy as np
import pytest

from memtax.membership.estimates import attack_metrics, verdict
from memtax.pipeline import audit_coverage
from memtax.pipeline.audit_verdicts import QUESTIONS, verdicts, widened


def share(rate, low=None, high=None, sequences=200, units=40):
    known = low is not None
    return {
        "sequences": sequences,
        "memorized": round((rate or 0) * sequences),
        "rate": rate,
        "low": low,
        "high": high,
        "unit": "document",
        "units": units,
        "reason": None if known else f"{units} documents, 10 needed: the share is of these only",
    }


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def attack(area, above=None, point=None):
    return {
        "auroc": area,
        "above_blind": above,
        "tpr_at_fpr_0.01": estimate(point),
        "verdict": {"shows_membership": None, "chance": None, "reason": ""},
    }


def domain(blind=None, units=(100, 100), **attacks):
    blind = blind or estimate(0.5, 0.42, 0.58)
    counts = dict(zip(("members", "nonmembers"), units, strict=True))
    return {"attacks": attacks, "blind": {"auroc": blind}, "units": {"name": "documents", **counts}}


def figures(**changed):
    found = {
        "window": {"prompt": 32, "continuation": 32},
        "skipped": {},
        "extraction": {"all": share(0.2, 0.15, 0.26)},
        "calibrated": {"measurable": False, "reason": "no held-out texts were given to calibrate with"},
        "near_verbatim": {"measurable": False, "reason": "no continuation was generated (--generate 0)"},
        "membership": {"measurable": False, "reason": "no held-out texts were given to compare members with"},
        "canaries": {"measurable": False, "reason": "no record of planted canaries was given"},
        "personal_data": {"measurable": False, "reason": "not installed: phonenumbers"},
    }
    return found | changed


def calibrated(exceeds, unseen):
    return {
        "measurable": True,
        "alpha": 0.01,
        "units": 120,
        "unit": "document",
        "exceeds": exceeds,
        "memorized_held_out": unseen,
    }


def membership(**one):
    return {"measurable": True, "domains": {"data": domain(**one)}}


HIGH, MIDDLE, LOW = estimate(0.9, 0.86, 0.93), estimate(0.55, 0.45, 0.65), estimate(0.4, 0.34, 0.46)
SEPARATED = estimate(0.9, 0.85, 0.94)
CASES = {
    "extraction: some": (
        "extraction",
        {},
        "shown",
        ["40 of 200 sequences, 20.0% (95% interval 15.0% to 26.0% over 40 d"],
    ),
    "extraction: none": ("extraction", {"extraction": {"all": share(0.0, 0.0, 0.01)}}, "not shown", ["0 of 200"]),
    "extraction: no verdict": ("extraction", {"extraction": {"all": share(None, sequences=0)}}, "not measured", []),
    "extraction: few documents": (
        "extraction",
        {"extraction": {"all": share(0.2, units=4)}},
        "shown",
        ["interval withheld: 4 documents, 10 needed"],
    ),
    "extraction: short rows": ("extraction", {"skipped": {"short": 3}}, "shown", ["not looked at: 3 rows", "are shorter"]),
    "unseen: above the rate": (
        "beyond_unseen",
        {"calibrated": calibrated(share(0.3, 0.2, 0.4), share(0.05, 0.02, 0.1, 100))},
        "shown",
        ["30.0%", "any continuation of 99.0% of unseen documents", "25.0% of the extraction rate is what unseen text gives"],
    ),
    "unseen: at the rate": (
        "beyond_unseen",
        {"calibrated": calibrated(share(0.02, 0.005, 0.04), share(0.0, 0.0, 0.03, 100))},
        "not shown",
        [],
    ),
    "unseen: few documents": (
        "beyond_unseen",
        {"calibrated": {"measurable": False, "units": 5, "reason": "5 held-out documents; a threshold needs 19 for 5%"}},
        "withheld",
        ["5 held-out documents"],
    ),
    "unseen: none given": ("beyond_unseen", {}, "not measured", ["no held-out texts"]),
    "near: some": (
        "near_verbatim",
        {
            "near_verbatim": {
                "measurable": True,
                "tokens": 32,
                "edits": 3,
                "train": {"identical": share(0.2, 0.1, 0.3), "near": share(0.25, 0.2, 0.3)},
                "held_out": {"near": share(0.01, 0.0, 0.03)},
            }
        },
        "shown",
        ["Besides the 40 identical ones, 10 of 200", "at most 3 tokens of 32", "of unseen sequences 1.0%"],
    ),
    "membership: an attack beats chance and texts": (
        "membership",
        {"membership": membership(loss=attack(MIDDLE), ez=attack(HIGH, estimate(0.4, 0.3, 0.5), 0.4))},
        "shown",
        [
            "EZ (error zone) has an AUROC of 0.900",
            "finds 40.0% of the training texts at 1% false positives",
            "over 100 training and 100 held-out documents, allowing for the choice among 2 attacks",
            "attacks against the base model (none was given)",
        ],
    ),
    "membership: texts alone are as good": (
        "membership",
        {"membership": membership(blind=SEPARATED, loss=attack(HIGH, estimate(0.0, -0.05, 0.05)))},
        "not shown",
        ["no more than the texts alone"],
    ),
    "membership: reaches chance": (
        "membership",
        {"membership": membership(loss=attack(MIDDLE))},
        "not shown",
        ["No attack is"],
    ),
    "membership: one of many by chance": (
        "membership",
        # Above chance by itself, not among four.
        {
            "membership": membership(
                loss=attack(estimate(0.58, 0.505, 0.65)), ez=attack(MIDDLE), wbc=attack(MIDDLE), reference=attack(MIDDLE)
            )
        },
        "not shown",
        ["among 4 attacks"],
    ),
    "membership: below chance": (
        "membership",
        {"membership": membership(loss=attack(LOW))},
        "below chance",
        ["AUROC of 0.400", "unlearning that went too far", "sets are of different kinds"],
    ),
    "membership: few documents": (
        "membership",
        {"membership": membership(units=(4, 5), loss=attack(estimate(1.0)))},
        "withheld",
        ["4 training and 5 held-out documents are too few (10 of a kind are needed)"],
    ),
    "membership: no held-out texts": ("membership", {}, "not measured", ["no held-out texts"]),
    "personal data: some": (
        "personal_data",
        {"personal_data": {"measurable": True, "count": 6, "distinct": 2}},
        "shown",
        ["6 of 40 extracted sequences", "2 distinct texts", "names of people"],
    ),
    "personal data: none": (
        "personal_data",
        {"personal_data": {"measurable": True, "count": 0, "distinct": 0}},
        "not shown",
        [],
    ),
    "personal data: not looked for": ("personal_data", {}, "not measured", ["phonenumbers"]),
}


def canaries(low, memorized=0):
    exposure = {"mean": 4.0, "least": 3.0, "most": 5.0, "low": low, "high": None if low is None else 5.0}
    row = {"repetitions": 1, "canaries": 20, "memorized": memorized, "exposure": exposure}
    counts = {"planted": 20, "held_out": 63, "candidates": 64, "most_bits": 6.0, "chance_bits": 1.4, "epsilon": None}
    return {"canaries": {"measurable": True, **counts, "by_repetitions": [row]}}


NONE = {"measurable": True, "count": 0, "distinct": 0}
CASES |= {
    "personal data: none": ("personal_data", {"personal_data": NONE}, "not shown", []),
    "canaries: above chance": (
        "canaries",
        canaries(2.0),
        "shown",
        ["20 planted and 63 held-out", "no bound on epsilon"],
    ),
    "canaries: extracted": ("canaries", canaries(None, 1), "shown", ["1 of 20 planted once"]),
    "canaries: at chance": ("canaries", canaries(1.0), "not shown", []),
    "canaries: few": ("canaries", canaries(None), "withheld", []),
    "canaries: none": ("canaries", {}, "not measured", []),
}


@pytest.mark.parametrize("name", CASES)
def test_verdicts(name):
    about, changed, expected, parts = CASES[name]
    given = figures(**changed)
    before = copy.deepcopy(given)
    found = {one["about"]: one for one in verdicts(given)}
    assert given == before
    assert list(found) == list(QUESTIONS)
    assert found[about]["verdict"] == expected, found[about]["sentence"]
    for part in parts:
        assert part in found[about]["sentence"]
    for one in found.values():
        # One sentence, which ends where it ends.
        assert one["sentence"].endswith(".")
        assert ". " not in one["sentence"].replace("No canary is extracted. ", "")
    rows = audit_coverage.coverage(given)
    assert ("attacked" in [row[1] for row in rows if row[0] == "Membership inference"]) == given["membership"]["measurable"]


def test_widened_intervals_hold_for_all_of_several_attacks_at_once():
    # 400 sets of 5 attacks that know nothing: 5% of sets may have any that is called above or below chance. The count's
    # standard error is 4.4; of single intervals about 80 sets have one.
    rng = np.random.default_rng(0)
    labels, sets = np.repeat([True, False], 60), 0
    for _ in range(400):
        areas = [attack_metrics(labels, rng.normal(size=120).tolist(), 10)["auroc"] for _ in range(5)]
        bounds = [widened(area, len(areas)) for area in areas]
        sets += any(low > 0.5 or high < 0.5 for low, high in bounds)
    assert sets <= 0.05 * 400 + 9
    assert widened(areas[0], 1) == pytest.approx((areas[0]["low"], areas[0]["high"]))


def test_a_verdict_on_membership_says_no_more_than_the_attack_alone():
    rng = np.random.default_rng(1)
    labels = np.repeat([True, False], 40)
    for effect in (0.0, 0.5, 1.0, 2.0):
        scores = (rng.normal(size=80) + effect * labels).tolist()
        row = attack_metrics(labels, scores, 10)
        row |= {"above_blind": None, "verdict": verdict(row["auroc"], estimate(0.5, 0.4, 0.6))}
        found = verdicts(figures(membership=membership(loss=row)))
        (told,) = (one for one in found if one["about"] == "membership")
        # A single attack is not chosen among any others.
        assert (told["verdict"] == "shown") == bool(row["verdict"]["shows_membership"])
