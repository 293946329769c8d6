"""Models in memory: one per role, known by its files; the base of an adapter is the adapter switched off."""

import ast
import json
import os
import time
import weakref
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from helpers.models import build, random_sequences
from helpers.small import VOCABULARY, random_texts, word_tokenizer
from memtax.errors import MemtaxError, ModelError
from memtax.lm import loading, placement, resident
from memtax.lm.loading import load_model, load_tokenizer
from memtax.lm.resident import REFERENCE, Placement, get
from memtax.lm.scores import score

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_held():
    resident.release()
    yield
    resident.release()


@pytest.fixture
def reads(monkeypatch):
    """Paths whose weights were read; no other model may be alive while one is."""
    found, alive = [], []

    def watched(auto, path, *arguments, **options):
        held = [one() for one in alive if one() is not None]
        assert not held, f"{len(held)} models are alive while {path} is read"
        model, report = read(auto, path, *arguments, **options)
        found.append(str(path))
        alive.append(weakref.ref(model))
        return model, report

    read = loading.read_weights
    monkeypatch.setattr(loading, "read_weights", watched)
    return found


MODEL = build("gpt_neox")
HEAD = next(name for name, module in MODEL.named_modules() if module is MODEL.get_output_embeddings())
"""Its name depends on the version of transformers."""


def saved(folder, seed=0):
    build("gpt_neox", seed).save_pretrained(folder)
    return folder


def adapter_of(base, folder, **options):
    torch.manual_seed(5)
    config = LoraConfig(
        **{"r": 4, "init_lora_weights": False, "target_modules": ["query_key_value"], "task_type": "CAUSAL_LM", **options}
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def there(seed):
    """The saved model, on the device of the models that are held."""
    return build("gpt_neox", seed).to(placement.process_device())


def logprobs(model):
    return score(model, random_sequences([24, 9], seed=3)).logprobs.tolist()


@pytest.fixture
def pair(tmp_path):
    base = saved(tmp_path / "base")
    return base, adapter_of(base, tmp_path / "adapter"), logprobs(load_model(base)), logprobs(load_model(tmp_path / "adapter"))


def test_a_model_is_read_once_and_released_before_the_next(tmp_path, reads):
    first, second = saved(tmp_path / "first"), saved(tmp_path / "second", 1)
    for path in (first, first, second, second, first):
        assert logprobs(get(path)) == logprobs(there(int(path == second)))
    assert reads == [str(first), str(second), str(first)]


def test_the_same_files_by_another_path_are_the_same_model(tmp_path, reads):
    (tmp_path / "link").symlink_to(saved(tmp_path / "model"))
    assert get(tmp_path / "model") is get(str(tmp_path / "link"))
    assert get(tmp_path / "model", placement=Placement("bfloat16")).dtype == torch.bfloat16
    assert len(reads) == 2


def test_a_changed_file_is_read_again(tmp_path, reads):
    folder = saved(tmp_path / "model")
    before = logprobs(get(folder))
    weights = folder / "model.safetensors"
    times = weights.stat()
    saved(folder, 1)
    # The same size, and the time of the old file: a copy that keeps times.
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert logprobs(get(folder)) == logprobs(there(1)) != before
    assert len(reads) == 2


def test_weights_that_change_during_a_stage_are_not_mixed_in(tmp_path):
    from memtax.filters.language_model import LanguageModelFilter

    scores = LanguageModelFilter(str(saved(tmp_path / "model")), prompt=4, continuation=4, bos=())
    rows = {"tokens": random_sequences([8])}
    first = scores(rows)
    saved(tmp_path / "model")  # the same weights, written again
    assert scores(rows) == first
    saved(tmp_path / "model", 1)
    with pytest.raises(ModelError, match="changed while it was being used; finished parts used its former weights"):
        scores(rows)
    assert LanguageModelFilter(scores.model, prompt=4, continuation=4, bos=())(rows) != first


def test_what_stands_before_a_row_is_set_by_each_call(tmp_path):
    from memtax.lm.special_tokens import bos_of

    folder = saved(tmp_path / "model")
    assert bos_of(get(folder, bos=(7,))) == (7,)
    assert bos_of(get(folder)) == ()


def test_an_adapter_switched_off_equals_its_base_exactly(pair, reads):
    base, adapter, without, within = pair
    assert without != within
    for path, expected in ((adapter, within), (base, without), (adapter, within), (base, without)):
        assert logprobs(get(path)) == expected
    assert reads == [str(base)]


def test_model_and_reference_share_the_weights_of_an_adapter(pair, reads):
    base, adapter, without, within = pair
    for _ in range(3):
        assert logprobs(get(adapter)) == within
        assert logprobs(get(base, role=REFERENCE)) == without
    assert reads == [str(base)]
    assert get(adapter, role=REFERENCE) is get(adapter)


@pytest.mark.parametrize(
    "options",
    [{"modules_to_save": [HEAD]}, {"bias": "all"}, {"init_lora_weights": "pissa"}, {"target_modules": [HEAD]}],
    ids=str,
)
def test_an_adapter_that_changes_its_base_is_not_merely_switched_off(tmp_path, options, reads):
    base = saved(tmp_path / "base")
    adapter = adapter_of(base, tmp_path / "adapter", **options)
    expected = [logprobs(load_model(path)) for path in (adapter, base)]
    reads.clear()
    assert [logprobs(get(path)) for path in (adapter, base)] == expected
    assert reads == [str(base)] * 2


def test_the_weights_of_a_base_are_not_read_for_its_adapter(pair, reads):
    base, adapter, without, within = pair
    assert logprobs(get(base)) == without
    assert logprobs(get(adapter)) == within
    assert reads == [str(base)]


def test_a_failed_read_leaves_nothing_behind(pair, tmp_path):
    base, adapter, without, _ = pair
    (adapter / "adapter_model.safetensors").write_bytes(b"damaged")
    get(base)
    with pytest.raises(ModelError, match="does not load"):
        get(adapter)
    assert logprobs(get(base)) == without
    with pytest.raises(ModelError, match="does not exist"):
        get(tmp_path / "absent")


@pytest.mark.parametrize("device_map", [None, "auto"])
def test_layers_spread_over_devices_score_alike(tmp_path, device_map):
    folder = saved(tmp_path / "model")
    found = logprobs(get(folder, placement=Placement(device_map=device_map)))
    torch.testing.assert_close(found, logprobs(load_model(folder)), rtol=1e-5, atol=1e-5)


def test_a_tokenizer_is_loaded_once_and_again_when_it_changed(tmp_path):
    folder = tmp_path / "tokenizer"
    word_tokenizer().save_pretrained(folder)
    first = load_tokenizer(folder)
    assert load_tokenizer(str(folder)) is first
    assert load_tokenizer(folder, own="padding") is not first
    time.sleep(0.01)
    (folder / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text() + "\n")
    assert load_tokenizer(folder) is not first


def test_weights_are_read_in_one_place():
    """`use_safetensors` and `trust_remote_code` stand in `memtax.lm.weights` alone."""
    unsafe = []
    for path in [*(ROOT / "memtax").rglob("*.py"), *(ROOT / "training").glob("*.py")]:
        if path.name in ("weights.py", "checkpoints.py"):  # the latter reloads the weights that the Trainer just wrote
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if "SentenceTransformer" in called or ("AutoModel" in called and called.endswith("from_pretrained")):
                    unsafe.append(f"{path.name}:{node.lineno}")
    assert not unsafe


@pytest.fixture
def material(tmp_path):
    """A model of words with its tokenizer, an adapter of it, and texts."""
    build("gpt_neox", vocab_size=VOCABULARY).save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    adapter_of(tmp_path / "model", tmp_path / "adapter")
    for name, seed in (("train", 0), ("held_out", 1)):
        rows = [json.dumps({"text": text}) for text in random_texts(12, 10, seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_one_model_at_a_time_in_a_run_with_checkpoints(material, reads):
    from memtax.jobs.run import Run

    others = []
    for seed in (1, 2, 3):
        others.append(str(material / f"step{seed}"))
        build("gpt_neox", seed, vocab_size=VOCABULARY).save_pretrained(others[-1])
    Run(
        model=str(material / "model"),
        corpus=str(material / "train.jsonl"),
        checkpoints=(*others[:2], str(material / "model")),
        reference_model=others[2],
        prompt=4,
        continuation=4,
        output=material / "run",
    ).run()
    assert reads == [str(material / "model"), others[2], *others[:2]]


def test_one_model_at_a_time_in_an_audit_with_an_adapter(material, reads):
    from memtax.jobs.audit import Audit

    Audit(
        model=str(material / "model"),
        adapter=str(material / "adapter"),
        train=str(material / "train.jsonl"),
        held_out=str(material / "held_out.jsonl"),
        prompt=4,
        continuation=4,
        resamples=10,
        output=material / "audit",
    ).run()
    # The adapter of the run, its base as the reference, and the adapter again for membership: one set of weights.
    assert reads == [str(material / "model")]


def test_gradients_of_quantized_weights_are_refused_in_one_line():
    from memtax.attribution.alignment import AlignmentFilter
    from memtax.attribution.influence_table import InfluenceSettings

    for make in (AlignmentFilter, InfluenceSettings):
        with pytest.raises(MemtaxError, match="'8bit': quantized weights have no gradients") as error:
            make("model", quantization="8bit")
        assert "\n" not in str(error.value)
    InfluenceSettings("model", quantization="8bit", methods=("repsim",))
