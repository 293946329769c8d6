"""Settings of `memtax run` for published suites of models whose training data are known: `pythia`, `olmo` and `hubble`.

Every name is from the public page listed with it. Settings given otherwise (options, a file, arguments) come first.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memtax.errors import MemtaxError

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Preset:
    """Settings for one model of a suite.

    Attributes:
        settings: keys of a run's configuration; `output` is `runs/` and the preset's name.
        sources: public pages that the names are from.
        notes: what a user of these data has to know.
    """

    settings: Mapping[str, Any]
    sources: tuple[str, ...]
    notes: tuple[str, ...] = ()


def _pythia() -> Iterator[tuple[str, Preset]]:
    """Biderman et al. 2023, with the factors published by Prashanth et al. 2024."""
    sources = (
        # Models, revisions step0 to step143000, and the order of the data.
        "https://github.com/EleutherAI/pythia",
        # Names of the sample and of the factors.
        "https://github.com/EleutherAI/semantic-memorization",
        f"{HUB}/datasets/usvsnsp/generation-num-duplicates",
        f"{HUB}/datasets/usvsnsp/semantic-duplicates",
        f"{HUB}/datasets/usvsnsp/pile-pythia-code-vs-nl-scores",
    )
    notes = (
        "The sequences are the first 64 tokens of a sample of training sequences of 2,049 tokens; `Index` is the position in "
        "the order of training, 1,024 sequences per step.",
        "Counts are over the whole corpus; published snowclones count the sequence itself, and one is subtracted.",
        "The revision `step143000` is the model of `main`.",
    )
    # Steps of the published growth of the 12B model.
    steps = (23000, 43000, 63000, 83000, 103000, 123000, 143000)
    for size in ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b"):
        for scheme, ending, scores in (("deduped", "-deduped", "deduped"), ("duped", "", "standard")):
            settings = {
                "model": f"EleutherAI/pythia-{size}{ending}",
                "revision": "step143000",
                "checkpoints": [f"@step{step}" for step in steps],
                "corpus": f"EleutherAI/pile-{scheme}-pythia-random-sampled",
                "counts": f"usvsnsp/generation-num-duplicates::{scheme}",
                "frequencies": f"usvsnsp/{scheme}-num-frequencies",
                "code_scores": f"usvsnsp/pile-pythia-code-vs-nl-scores::{scores}",
                "semantic_matches": f"usvsnsp/semantic-duplicates::{scheme}_snowclones",
                "textual_matches": f"usvsnsp/semantic-duplicates::{scheme}_templates",
                "filters": ["training_order"],
                "prompt": 32,
                "continuation": 32,
            }
            yield f"pythia:{size}{ending}", Preset(settings, sources, notes)


def _olmo() -> Iterator[tuple[str, Preset]]:
    """OLMo 2 (arXiv 2501.00656), counted by infini-gram (Liu et al. 2024)."""
    mix = f"{HUB}/datasets/allenai/olmo-mix-1124"
    index = "https://infini-gram.readthedocs.io/en/latest/api.html"
    steps = ("140000-tokens294B", "480000-tokens1007B", "950000-tokens1993B", "1907359-tokens4001B")
    models: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("1b", "OLMo-2-0425-1B", steps),
        ("7b", "OLMo-2-1124-7B", ()),
        ("13b", "OLMo-2-1124-13B", ()),
        ("32b", "OLMo-2-0325-32B", ()),
    )
    notes = (
        "The sequences are windows of the first 500 documents of the part `wiki` of the pretraining mix, which has two files; "
        "`corpus` takes any other, such as `allenai/olmo-mix-1124:pes2o:train[:500]`.",
        "Windows are asked for by text in an index of pretraining, mid-training and instruction data of the instruction-tuned "
        "model, which the base model has not seen all of; 1B and 7B are counted in the index of 13B.",
        "Token frequencies are those of the sequences' documents.",
    )
    for size, model, revisions in models:
        counts = "v4_olmo-2-0325-32b-instruct_llama" if size == "32b" else "v4_olmo-2-1124-13b-instruct_llama"
        settings = {
            "model": f"allenai/{model}",
            "checkpoints": [f"@stage1-step{revision}" for revision in revisions],
            "corpus": "allenai/olmo-mix-1124:wiki:train[:500]",
            "counts": f"infini-gram:{counts}",
            "prompt": 32,
            "continuation": 32,
        }
        yield f"olmo:{size}", Preset(settings, (f"{HUB}/allenai/{model}", mix, index), notes)


def _hubble() -> Iterator[tuple[str, Preset]]:
    """Wei et al. 2025, arXiv 2510.19811: texts inserted at random, each a known number of times."""
    notes = (
        "The split `train` contains the inserted texts, each with its number of insertions in `duplicates` (1 to 256); `test` "
        "contains texts of the same kind that were not inserted.",
        "The standard model was trained on the same corpus without the insertions: what it completes as well is predictable.",
        "The last checkpoints are `step48000` (100B tokens) and `step238500` (500B), and need not be `main`.",
    )
    for size in ("1b", "8b"):
        for tokens, revision in (("100b", "step48000"), ("500b", "step238500")):
            for texts in ("gutenberg_popular", "gutenberg_unpopular", "wikipedia"):
                name = f"allegrolab/hubble-{size}-{tokens}_toks"
                settings = {
                    "model": f"{name}-perturbed-hf",
                    "revision": revision,
                    "reference_model": f"{name}-standard-hf@{revision}",
                    "corpus": f"allegrolab/passages_{texts}",
                    "held_out": f"allegrolab/passages_{texts}::test",
                    "counts": "column:duplicates",
                    "prompt": 32,
                    "continuation": 32,
                }
                sources = ("https://github.com/allegro-lab/hubble", f"{HUB}/datasets/allegrolab/passages_{texts}")
                yield f"hubble:{size}-{tokens}-{texts.replace('_', '-')}", Preset(settings, sources, notes)


PRESETS: dict[str, Preset] = dict([*_pythia(), *_olmo(), *_hubble()])
"""Name to preset."""


def preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        MemtaxError: there is no such preset; the closest or all of its suite are named.
    """
    if name not in PRESETS:
        mine = [each for each in PRESETS if each.partition(":")[0] == name.partition(":")[0]]
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(mine) or ", ".join(f"{suite}:..." for suite in dict.fromkeys(each.split(":")[0] for each in PRESETS))
        raise MemtaxError(f"there is no preset {name!r}; {hint}known: {known}")
    return {**PRESETS[name].settings, "output": f"runs/{name.replace(':', '-')}", "preset": name}
