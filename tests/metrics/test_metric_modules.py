"""Every folder of `metrics/`, as `evaluate` loads it; a new folder is a new test."""

import doctest
import importlib
import inspect
import json
import math
import sys

import evaluate
import numpy as np
import pytest
from evaluate.loading import evaluation_module_factory, import_main_class
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve

import memtax
from helpers.processes import start
from memtax.files import asset

NAMES = sorted(folder.name for folder in asset("metrics").iterdir() if folder.is_dir())


def card_of(name):
    return (asset("metrics") / name / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True, scope="module")
def caches(tmp_path_factory):
    # The package that evaluate makes is imported once per process: what other tests loaded came from another folder.
    forget()
    folder = tmp_path_factory.mktemp("evaluate")
    before = evaluate.config.HF_METRICS_CACHE, evaluate.config.HF_MODULES_CACHE
    evaluate.config.HF_METRICS_CACHE = evaluate.config.HF_MODULES_CACHE = str(folder)
    evaluate.loading.config.HF_MODULES_CACHE = str(folder)
    yield
    evaluate.config.HF_METRICS_CACHE, evaluate.config.HF_MODULES_CACHE = before
    evaluate.loading.config.HF_MODULES_CACHE = before[1]
    sys.path.remove(str(folder))
    forget()


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] == "evaluate_modules"]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != str(evaluate.config.HF_MODULES_CACHE)]
    importlib.invalidate_caches()


def load(name, **options):
    return evaluate.load(memtax.metric_path(name), **options)


@pytest.mark.parametrize("name", NAMES)
def test_examples_through_the_loader(name):
    """What evaluate's own common test does: explicit parameters, and a doctest of the loaded module."""
    module = importlib.import_module(evaluation_module_factory(memtax.metric_path(name)).module_path)
    parameters = inspect.signature(import_main_class(module.__name__)._compute).parameters.values()
    assert all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters)
    results = doctest.testmod(module, raise_on_error=True)
    assert results.failed == 0
    assert results.attempted > 1


@pytest.mark.parametrize("name", NAMES)
def test_cases(name, tmp_path):
    metric = load(name)
    cases = json.loads((asset("metrics") / name / "cases.json").read_text(encoding="utf-8"))
    assert cases
    for case in cases:
        results = metric.compute(**case["inputs"], **case["options"])
        for key, value in case["expected"].items():
            assert results[key] == pytest.approx(value, abs=1e-9, nan_ok=False) if value is not None else results[key] is None
        # The same in two batches, and a result that JSON can hold.
        rows = len(next(iter(case["inputs"].values())))
        for part in (slice(0, 1), slice(1, rows)):
            metric.add_batch(**{key: column[part] for key, column in case["inputs"].items()})
        again = metric.compute(**case["options"])
        assert again == results
        saved = evaluate.save(tmp_path / "results.json", **again)
        stored = json.loads(saved.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
        assert {key: stored[key] for key in again} == again


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match="no metric 'auroc'; there are calibration_error, "):
        memtax.metric_path("auroc")


def test_k_extractability():
    metric = load("k_extractability")
    # Rows: all 3 match; 2 of 3 with the first wrong; a generation that stopped after 1 of 2.
    results = metric.compute(
        predictions=[[1, 2, 3, 9], [7, 2, 3], [4]], references=[[1, 2, 3], [1, 2, 3], [4, 5]], per_example=True
    )
    assert results["per_example"] == {
        "is_memorized": [True, False, False],
        "memorization_score": [1.0, pytest.approx(2 / 3), 0.5],
        "match_length": [3, 0, 1],
    }
    assert results["k_extractable"] == pytest.approx(1 / 3)
    # Clopper-Pearson for 1 of 3 at 95%: roots of P(X >= 1) = .025 and P(X <= 1) = .025, that is 1 - .975^(1/3) = .0084
    # and (1 - q)^3 + 3 q (1 - q)^2 = .025 at q = .9057.
    assert results["k_extractable_low"] == pytest.approx(1 - 0.975 ** (1 / 3), abs=1e-9)
    high = results["k_extractable_high"]
    assert (1 - high) ** 3 + 3 * high * (1 - high) ** 2 == pytest.approx(0.025, abs=1e-9)
    # The first token alone: rows 1 and 3 match.
    options = {"tokens": 1}
    assert metric.compute(predictions=[[1], [7], [4]], references=[[1, 2], [1], [4]], **options)[
        "k_extractable"
    ] == pytest.approx(2 / 3)


def test_membership_inference_against_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = np.round(labels * 0.7 + rng.normal(size=500), 1)  # rounded: many ties
    results = load("membership_inference").compute(predictions=scores, references=labels, fprs=[0.01, 0.1], resamples=200)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert results["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert results["tpr_at_fpr_0.01"] is None  # fewer than 500 non-members
    assert "500 are needed" in results["tpr_at_fpr_0.01_reason"]
    assert results["tpr_at_fpr_0.1"] == pytest.approx(tpr[fpr <= 0.1].max(), abs=1e-12)
    assert results["fpr_at_tpr_0.95"] == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-12)
    for name in ("auroc", "tpr_at_fpr_0.1", "fpr_at_tpr_0.95"):
        assert 0 <= results[f"{name}_low"] < results[name] < results[f"{name}_high"] <= 1
    # Hanley and McNeil's standard error of an AUROC of about .69 with 250 of each is .023; the interval is about 4 of them.
    assert 0.06 < results["auroc_high"] - results["auroc_low"] < 0.13
    assert "auroc_low" not in load("membership_inference").compute(predictions=scores, references=labels, resamples=0)


def test_calibration_error_against_scikit_learn():
    rng = np.random.default_rng(1)
    probabilities = rng.uniform(size=300)
    labels = (rng.uniform(size=300) < probabilities**2).astype(int)
    results = load("calibration_error").compute(predictions=probabilities, references=labels, bins=10, curve=True)
    bins = np.minimum((probabilities * 10).astype(int), 9)
    expected = sum(abs((labels - probabilities)[bins == b].sum()) for b in range(10)) / 300
    assert results["ece"] == pytest.approx(expected, abs=1e-12)
    assert results["brier_score"] == pytest.approx(brier_score_loss(labels, probabilities), abs=1e-12)
    assert results["log_loss"] == pytest.approx(log_loss(labels, probabilities), abs=1e-12)
    assert sum(results["curve"]["rows"]) == 300


def test_probabilistic_extraction_against_counting():
    logprobs = [[-0.5, -0.7], [-3.0], [0.0], [-1.0, -math.inf]]
    results = load("probabilistic_extraction").compute(predictions=logprobs, samples=[5], probabilities=[0.5], per_example=True)
    p = [math.exp(-1.2), math.exp(-3), 1.0, 0.0]
    # 1 - (1 - p)^5 is .83, .23, 1, 0: two of four reach .5.
    assert [1 - (1 - value) ** 5 >= 0.5 for value in p] == [True, False, True, False]
    assert results["extractable_n5_p0.5"] == 0.5
    assert results["excluded"] == 1
    least = [next(n for n in range(1, 1000) if 1 - (1 - value) ** n >= 0.5) for value in p[:3]]
    assert results["per_example"]["queries_p0.5"] == [*least, None]
    assert results["per_example"]["logprob"][-1] is None


def test_membership_scores_against_their_definitions():
    logprobs = [[-1.0, -2.0, -3.0, -4.0], [-2.0, -2.0, -8.0, -1.0], [-1.0], []]
    means, variances = [[-2.0] * len(row) for row in logprobs], [[4.0] * len(row) for row in logprobs]
    reference = [[-2.0] * len(row) for row in logprobs]
    texts = ["abcd", "efgh", "x", "y"]
    results = load("membership_scores").compute(
        predictions=logprobs,
        references=[1, 0, 1, 0],
        texts=texts,
        means=means,
        variances=variances,
        reference_predictions=reference,
        k=[0.5],
        resamples=0,
    )
    # Means of (-1, -2, -3, -4) and (-2, -2, -8, -1); a text without a scored token has no score.
    assert results["loss"] == [-2.5, -3.25, -1.0, None]
    # The lowest half: (-4, -3) and (-8, -2); of one token, that one.
    assert results["min_k_0.5"] == [-3.5, -5.0, -1.0, None]
    # (log p + 2) / 2: lowest halves (-1, -.5) and (-3, 0); (-1 + 2) / 2 = .5.
    assert results["min_k_plus_plus_0.5"] == [-0.75, -1.5, 0.5, None]
    assert results["reference"] == [-0.5, -1.25, 1.0, None]
    import zlib

    assert results["zlib"][0] == pytest.approx(-2.5 / len(zlib.compress(b"abcd")))
    # Members -2.5 and -1, the one non-member with a score -3.25: all pairs in order.
    assert results["auroc_loss"] == 1.0


def test_gradient_alignment_against_its_definition():
    rng = np.random.default_rng(2)
    own, paraphrases = rng.normal(size=(3, 6)), rng.normal(size=(3, 2, 6))
    metric = load("gradient_alignment")
    results = metric.compute(predictions=paraphrases.tolist(), gradients=own.tolist(), tensors=[2, 4], per_example=True)

    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    for text in range(3):
        parts = [(cosine(own[text][:2], p[:2]) + cosine(own[text][2:], p[2:])) / 2 for p in paraphrases[text]]
        assert results["per_example"]["alignment"][text] == pytest.approx(np.mean(parts), abs=1e-12)
        products = [own[text] @ p for p in paraphrases[text]]
        assert results["per_example"]["inner_product"][text] == pytest.approx(np.mean(products), abs=1e-12)


def test_taxonomy_from_texts_and_from_flags_agree():
    texts = ["row 1 row 2 row 3 row 4 row 5 row 6", "no template at all in here", "la la la la la la la la"]
    metric = load("memorization_taxonomy")
    common = {"predictions": [1, 0, 1], "sequence_duplicates": [1, 9, None]}
    from_texts = metric.compute(**common, texts=texts, per_example=True)
    from_flags = metric.compute(**common, is_incrementing=[1, 0, 0], is_repeating=[0, 0, 1], per_example=True)
    assert from_texts == from_flags
    # A missing count could be recitation: no category, and not counted in one.
    assert from_texts["per_example"]["taxonomy"] == ["reconstruction", "recitation", None]
    assert (from_texts["unlabelled"], from_texts["all_memorized"], from_texts["recollection_rate"]) == (1, 2, None)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        (
            "membership_inference",
            {"predictions": [0.1, 0.2], "references": [1]},
            "differ in length: predictions 2, references 1",
        ),
        ("membership_inference", {"predictions": [0.1, 0.2], "references": [1, 1]}, "all 2 labels are 1"),
        ("membership_inference", {"predictions": [0.1, math.nan], "references": [1, 0]}, "NaN in row 1"),
        ("membership_inference", {"predictions": [], "references": []}, "is empty"),
        ("membership_inference", {"predictions": [0.1, 0.2], "references": [1, 2]}, "must be 0 or 1, not 2.0 in row 1"),
        ("membership_inference", {"predictions": [0.1, 0.2]}, "references"),
        ("membership_inference", {"predictions": "ab", "references": [1, 0]}, "must be a list"),
        (
            "membership_inference",
            {"predictions": ["a", "b"], "references": [1, 0]},
            "could not convert|cannot be read|expected format",
        ),
        ("membership_inference", {"predictions": [[0.1], [0.2]], "references": [1, 0]}, "cannot be read|expected format"),
        ("calibration_error", {"predictions": [0.1, 1.2], "references": [1, 0]}, r"must be in \[0, 1\], got 1.2"),
        ("calibration_error", {"predictions": [0.1], "references": [None]}, "must be 0 or 1, not None"),
        ("k_extractability", {"predictions": [[1]], "references": [[]]}, "row 0 has 0 tokens"),
        ("k_extractability", {"predictions": ["a"], "references": ["a"]}, "give tokenizer="),
        (
            "k_extractability",
            {"predictions": [[1, 2.5]], "references": [[1, 2]]},
            "predictions must be whole numbers, not 2.5 in row 0",
        ),
        (
            "memorization_taxonomy",
            {"predictions": [True, True], "sequence_duplicates": [2, np.float32(5.5)]},
            "sequence_duplicates must be whole numbers, not 5.5 in row 1",
        ),
        ("coding_length", {"predictions": [1.0]}, "predictions cannot be read so$"),
        (
            "membership_scores",
            {"predictions": [[-1.0]], "means": [[-1.0]], "variances": [[-0.5]]},
            "variances contain -0.5 in row 0",
        ),
        ("k_extractability", {"predictions": [[1], [2]], "references": [[1]]}, "differ in length"),
        ("probabilistic_extraction", {"predictions": [[-1.0], []]}, "no token in row 1"),
        ("probabilistic_extraction", {"predictions": [[0.5]]}, "at most 0"),
        ("probabilistic_extraction", {"predictions": [[math.nan]]}, "contain nan in row 0"),
        ("membership_scores", {"predictions": [[-1.0]], "means": [[-1.0]]}, "only one was given"),
        ("membership_scores", {"predictions": [[-1.0]], "means": [[-1.0, 2.0]], "variances": [[1.0]]}, "2 tokens in row 0"),
        ("membership_scores", {"predictions": [[-1.0], [-2.0]], "references": [1, 1]}, "all 2 labels are 1"),
        ("membership_scores", {"predictions": [[-1.0]], "text": ["a"]}, "no input 'text'|text"),
        ("memorization_taxonomy", {"predictions": [1], "sequence_duplicates": [1]}, "needs texts, or is_incrementing"),
        ("memorization_taxonomy", {"predictions": [1], "sequence_duplicates": [-1], "texts": ["a"]}, "-1"),
        ("templating", {"predictions": [1]}, "expected format|cannot be read"),
        ("coding_length", {"predictions": [""]}, "no symbol in row 0"),
        ("gradient_alignment", {"predictions": [[1.5]]}, "cosine must be in"),
        ("gradient_alignment", {"predictions": [[[1.0, 0.0]]]}, "gradients of the texts"),
        ("gradient_alignment", {"predictions": [[[1.0, 0.0]]], "gradients": [[1.0]]}, "differ in length"),
        ("gradient_alignment", {"predictions": [[[1.0]]], "gradients": [[0.0]]}, "is zero"),
    ],
)
def test_bad_input_is_a_value_error_that_says_so(name, inputs, message):
    metric = load(name)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        metric.compute(**inputs)
    assert isinstance(caught.value, ValueError) or "text" in inputs  # an unknown option is Python's own TypeError
    # The module works again: nothing of the failed call is left.
    good = json.loads((asset("metrics") / name / "cases.json").read_text())[0]
    assert metric.compute(**good["inputs"], **good["options"])


def test_combine():
    both = evaluate.combine([load("membership_inference"), load("calibration_error")])
    results = both.compute(predictions=[0.9, 0.8, 0.3, 0.1], references=[1, 1, 0, 0])
    assert (results["auroc"], results["brier_score"]) == (1.0, pytest.approx((0.01 + 0.04 + 0.09 + 0.01) / 4))


HALF = """
import json, sys
import evaluate
process, folder, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
evaluate.config.HF_MODULES_CACHE = evaluate.loading.config.HF_MODULES_CACHE = f"{folder}/modules{process}"
metric = evaluate.load(path, num_process=2, process_id=process, experiment_id="two", cache_dir=folder)
scores, labels = [[0.9, 0.2, 0.4], [0.8, 0.7, 0.3]][process], [[1, 0, 1], [1, 0, 0]][process]
metric.add_batch(predictions=scores[:2], references=labels[:2])
metric.add_batch(predictions=scores[2:], references=labels[2:])
print(json.dumps(metric.compute()))
"""


def test_two_processes(tmp_path):
    path = memtax.metric_path("membership_inference")
    started = [start("-c", HALF, process, tmp_path, path) for process in range(2)]
    results = [json.loads(process.wait(90).stdout) for process in started]
    whole = load("membership_inference").compute(predictions=[0.9, 0.2, 0.4, 0.8, 0.7, 0.3], references=[1, 0, 1, 1, 0, 0])
    assert results == [json.loads(json.dumps(whole)), None]


@pytest.mark.parametrize("name", [name for name in NAMES if "**documents**" in card_of(name)])
def test_intervals_are_over_documents_where_these_are_given(name):
    rng = np.random.default_rng(4)
    # 24 documents of 10 equal rows: as good as 24 rows.
    documents = np.repeat(np.arange(24), 10)
    effect = np.repeat(rng.normal(size=24), 10)
    label = np.repeat(np.arange(24) % 2, 10)
    inputs = {
        "calibration_error": {"predictions": 1 / (1 + np.exp(-effect)), "references": effect + label > 0.5},
        "gradient_alignment": {"predictions": np.tanh(effect)[:, None].tolist(), "references": label},
        "k_extractability": {"predictions": (effect > 0)[:, None].astype(int).tolist(), "references": [[1]] * 240},
        "membership_inference": {"predictions": effect, "references": label, "fprs": [0.5]},
        "membership_scores": {"predictions": (-np.exp(effect))[:, None].tolist(), "references": label},
        "memorization_taxonomy": {
            "predictions": effect > 0,
            "sequence_duplicates": np.ones(240, int),
            "is_incrementing": np.zeros(240),
            "is_repeating": np.zeros(240),
        },
        "probabilistic_extraction": {"predictions": (-np.exp(effect)).tolist(), "samples": [1], "probabilities": [0.4]},
        "templating": {"predictions": np.where(effect > 0, "la la la la la la la la", "It was a bright cold day.").tolist()},
    }[name]
    metric = load(name)
    rows = metric.compute(**inputs)
    over = metric.compute(**inputs, documents=documents)
    few = metric.compute(**inputs, documents=[f"part {document % 7}" for document in documents])
    bounds = [key.removesuffix("_low") for key, value in rows.items() if key.endswith("_low") and value is not None]
    assert bounds
    for key in bounds:
        if over[key] is None:
            assert "documents of non-members" in over[f"{key}_reason"]
            continue
        assert over[key] == rows[key], key
        if rows[f"{key}_high"] - rows[f"{key}_low"] > 0.02:
            assert over[f"{key}_high"] - over[f"{key}_low"] > 1.3 * (rows[f"{key}_high"] - rows[f"{key}_low"]), key
        assert few[f"{key}_low"] is few[f"{key}_high"] is None
        assert "document" in few[f"{key}_reason"]
    prefix = "all_" if name == "memorization_taxonomy" else ""
    assert (over[f"{prefix}documents"], few[f"{prefix}documents"]) == (24, 7)
    # Each row its own document is as independent rows, in the closed forms.
    apart = metric.compute(**inputs, documents=[str(row) for row in range(240)])
    if name not in ("calibration_error", "membership_inference", "gradient_alignment"):
        assert {key: apart[key] for key in bounds} == {key: rows[key] for key in bounds}


@pytest.mark.parametrize("name", NAMES)
def test_card(name):
    from huggingface_hub import ModelCard

    folder = asset("metrics") / name
    text = card_of(name)
    card = ModelCard(text)
    metadata = card.data.to_dict()
    assert metadata["sdk"] == "gradio"
    assert metadata["app_file"] == "app.py"
    assert {"evaluate", "metric"} <= set(metadata["tags"])
    assert len(metadata["short_description"]) <= 60
    assert ModelCard(str(card)).data.to_dict() == metadata
    for heading in ("Use", "Inputs", "Outputs", "Example", "Limits", "Citation"):
        assert f"\n## {heading}\n" in text
    # The worked example works, and every parameter of the module is described.
    example = doctest.DocTestParser().get_doctest(text.split("## Example")[1].split("```")[1], {}, name, None, 0)
    assert doctest.DocTestRunner().run(example).failed == 0
    metric = load(name)
    parameters = list(inspect.signature(metric._compute).parameters)
    for parameter in parameters:
        assert f"**{parameter}**" in text, parameter
    assert f"memtax-{memtax.__version__}-py3" in (folder / "requirements.txt").read_text()
