"""Membership figures from a run's own forward pass, against the attacks called one by one."""

import numpy as np
import pyarrow as pa
import pytest

from memtax import statistics
from memtax.membership.from_run import membership_of_run
from memtax.report.data import Run
from memtax.report.membership_section import members


def table(separation, rows=60, kinds=(True, False)):
    rng = np.random.default_rng(0)
    labels = [kinds[row % len(kinds)] for row in range(rows)]
    logprobs = [[None, *(-rng.exponential(1.0 if label else 1.0 + separation, 12)).tolist()] for label in labels]
    words = [" ".join(rng.choice(list("abcdefgh"), 12)) for _ in labels]
    return pa.table(
        {"is_member": labels, "token_logprobs": logprobs, "text": words, "tokens": [[1] * 13 for _ in labels], "other": words}
    )


def test_scores_are_the_attacks_own():
    rows = table(2.0)
    found = membership_of_run(rows, resamples=50)
    labels = rows.column("is_member").to_pylist()
    losses = [np.mean(values[1:]) for values in rows.column("token_logprobs").to_pylist()]
    assert found["attacks"]["loss"]["auroc"]["value"] == pytest.approx(statistics.auroc(labels, losses), abs=1e-12)
    # A fifth of twelve tokens: the two lowest.
    lowest = [np.mean(sorted(values[1:])[:2]) for values in rows.column("token_logprobs").to_pylist()]
    assert found["attacks"]["min_k_0.2"]["auroc"]["value"] == pytest.approx(statistics.auroc(labels, lowest), abs=1e-12)
    assert set(found["attacks"]) == {"loss", "zlib", "min_k_0.2"}
    # Words are drawn alike for both kinds, so the texts alone give nothing away.
    assert found["attacks"]["loss"]["verdict"]["shows_membership"]


def test_without_both_kinds_there_is_nothing_to_tell_apart():
    assert membership_of_run(table(1.0, kinds=(True,))) is None


@pytest.mark.parametrize(("separation", "said"), [(3.0, "Members can be told"), (0.0, "No attack shows membership")])
def test_the_section_says_what_the_figures_show(separation, said):
    run = Run({"membership": membership_of_run(table(separation), resamples=50)}, {}, None, None, None, None)
    section = members(run)
    assert section.parts[0].title.startswith(said)
    assert section.parts[1].rows[-1][0] == "blind baseline"


def test_the_section_says_what_is_missing():
    assert "held_out" in members(Run({}, {}, None, None, None, None)).missing[0]
