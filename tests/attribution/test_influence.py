"""Influence against direct dense implementations of the formulas, on gradients from autograd; `memtax influence` on files."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PreTrainedTokenizerFast

import memtax
from helpers.processes import torchrun
from memtax.attribution import influence_table as module
from memtax.attribution.influence_functions import Influence, damping, datainf, delta, influence, lissa, repsim
from memtax.attribution.influence_table import InfluenceSettings, influence_table
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError, StaleOutputError
from memtax.results import read_table

SIZE = 40
COMMON = {
    "vocab_size": SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def base(kind=GPTNeoXConfig):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(kind(**COMMON)).eval().requires_grad_(False)


def adapted(targets=("query_key_value", "dense"), kind=GPTNeoXConfig, rank=2):
    torch.manual_seed(1)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=6, target_modules=list(targets), init_lora_weights=False, lora_dropout=0.3
    )
    return get_peft_model(base(kind), config).eval()


def examples(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, SIZE, (length,), generator=generator).tolist() for length in lengths]


def dense(model, sequences, scored=None, mark="lora_"):
    """Gradients of the mean loss, one backward pass per text: name to (examples, numbers)."""
    tensors = {name: tensor for name, tensor in model.named_parameters() if mark in name}
    rows = {name: [] for name in tensors}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    for index, sequence in enumerate(sequences):
        labels = [token if scored is None or scored[index][t] else -100 for t, token in enumerate(sequence)]
        logits = model(input_ids=torch.tensor([sequence])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]))
        for (name, tensor), found in zip(tensors.items(), torch.autograd.grad(loss, list(tensors.values())), strict=True):
            assert found.shape == tensor.shape
            rows[name].append(found.flatten().double())
    for tensor in tensors.values():
        tensor.requires_grad_(False)
    return {name: torch.stack(values).numpy() for name, values in rows.items()}


def slow_datainf(train, test):
    """The formula of FACTS, vector by vector: (1/(n lambda)) sum_i (v - <g_i, v> g_i / (lambda + <g_i, g_i>))."""
    n, size = train.shape
    weight = sum(g @ g for g in train) / (10 * n * size)
    found = np.zeros((n, len(test)))
    for j, v in enumerate(test):
        solved = np.zeros(size)
        for g in train:
            solved += v - (g @ v) * g / (weight + g @ g)
        solved /= n * weight
        found[:, j] = [-solved @ g for g in train]
    return found


def slow_lissa(train, test, iterations=10, alpha=1.0, scale=None):
    """The iteration of FACTS with H written out as a matrix."""
    n, size = train.shape
    weight = np.trace(train @ train.T) / (10 * n * size)
    hessian = train.T @ train / n + weight * np.eye(size)
    scale = alpha * np.linalg.norm(hessian, 2) if scale is None else scale
    found = np.zeros((n, len(test)))
    for j, v in enumerate(test):
        r = v
        for _ in range(iterations):
            r = v + r - alpha / scale * hessian @ r
        found[:, j] = [-(alpha / scale * r) @ g for g in train]
    return found


def slow_exact(train, test):
    weight = np.trace(train @ train.T) / (10 * train.size)
    return -train @ np.linalg.solve(train.T @ train / len(train) + weight * np.eye(train.shape[1]), test.T)


@given(n=st.integers(1, 6), m=st.integers(1, 4), size=st.integers(1, 8), seed=st.integers(0, 999), more=st.floats(0.5, 4))
@settings(max_examples=40, deadline=None)
def test_datainf_and_lissa_equal_the_dense_formulas(n, m, size, seed, more):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(n, size)), rng.normal(size=(m, size))
    gram, cross = train @ train.T, train @ test.T
    np.testing.assert_allclose(datainf(gram, cross, size), slow_datainf(train, test), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(lissa(gram, cross, size), slow_lissa(train, test), rtol=1e-8, atol=1e-8)
    norm = np.linalg.norm(train.T @ train / n, 2) + damping(gram, size)
    options = {"iterations": 7, "alpha": 0.3, "scale": 0.3 * norm * more}
    np.testing.assert_allclose(lissa(gram, cross, size, **options), slow_lissa(train, test, **options), rtol=1e-8, atol=1e-8)


def test_lissa_says_when_it_would_not_converge():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(12, 4)), rng.normal(size=(3, 4))
    gram, cross = train @ train.T, train @ test.T
    norm = np.linalg.norm(train.T @ train / 12 + damping(gram, 4) * np.eye(4), 2)
    lissa(gram, cross, 4, scale=norm * 0.51)
    for scale in (norm * 0.49, 0.0, -1.0):
        with pytest.raises(MemtaxError, match="does not converge"):
            lissa(gram, cross, 4, scale=scale)
    with pytest.raises(MemtaxError, match="0 iterations"):
        lissa(gram, cross, 4, iterations=0)


def test_a_tensor_without_gradients_has_no_influence():
    # LoRA's A before training: B is 0, so nothing reaches it.
    assert not datainf(np.zeros((3, 3)), np.zeros((3, 2)), 5).any()
    assert not lissa(np.zeros((3, 3)), np.zeros((3, 2)), 5).any()


@pytest.mark.parametrize(
    ("targets", "kind"), [(("query_key_value", "dense"), GPTNeoXConfig), (("q_proj", "v_proj", "lm_head"), LlamaConfig)]
)
def test_lora_influence_equals_autograd_and_the_formulas(targets, kind):
    model = adapted(targets, kind).double()
    train, test = examples([12, 7, 20, 5, 9]), examples([11, 6, 3], seed=1)
    found = influence(model, train, test)
    ours, theirs = dense(model, train), dense(model, test)
    expected = {"gradient_match": lambda a, b: -a @ b.T, "datainf": slow_datainf, "lissa": slow_lissa, "exact": slow_exact}
    for method, formula in expected.items():
        total = 0
        assert set(found[method].tensors) == set(ours)
        for name in ours:
            value = formula(ours[name], theirs[name])
            total = total + value
            scale = np.abs(value).max()
            np.testing.assert_allclose(found[method].tensors[name], value, rtol=1e-6, atol=1e-7 * scale, err_msg=name)
        np.testing.assert_allclose(found[method].values, total, rtol=1e-6, atol=1e-7 * np.abs(total).max())
    assert not found["repsim"].tensors


def test_the_loss_may_be_over_a_part_of_each_example():
    model = adapted().double()
    train, test = examples([12, 7, 20]), examples([11, 6], seed=1)
    scored = [[t >= 4 for t in range(len(one))] for one in train], [[t >= 3 for t in range(len(one))] for one in test]
    found = influence(model, train, test, methods=["datainf"], train_scored=scored[0], test_scored=scored[1])["datainf"]
    ours, theirs = dense(model, train, scored[0]), dense(model, test, scored[1])
    total = sum(slow_datainf(ours[name], theirs[name]) for name in ours)
    np.testing.assert_allclose(found.values, total, rtol=1e-6, atol=1e-7 * np.abs(total).max())


def test_without_adapters_embeddings_and_head():
    model = base().double()
    train, test = examples([12, 7]), examples([11], seed=1)
    found = influence(model, train, test, methods=["gradient_match"])["gradient_match"]
    weights = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    names = [name for name, tensor in model.named_parameters() if id(tensor) in weights]
    for name in names:
        ours, theirs = dense(model, train, mark=name)[name], dense(model, test, mark=name)[name]
        np.testing.assert_allclose(found.tensors[name], -ours @ theirs.T, rtol=1e-8, atol=1e-10)
    assert set(found.tensors) == set(names)


def test_repsim_reads_the_last_token_not_the_padding():
    model = base()
    train, test = examples([12, 1, 20]), examples([7, 3], seed=1)
    found = influence(model, train, test, methods=["repsim"])["repsim"].values

    def state(sequence):
        output = model(input_ids=torch.tensor([sequence]), output_hidden_states=True)
        return output.hidden_states[-1][0, -1].double()

    for i, one in enumerate(train):
        for j, other in enumerate(test):
            expected = torch.cosine_similarity(state(one), state(other), dim=0).item()
            assert found[i, j] == pytest.approx(expected, abs=1e-5)
    # An identical text is the most alike.
    same = influence(model, [*train, test[1]], test, methods=["repsim"])["repsim"]
    assert same.top(1)[1, 0] == 3
    assert np.isnan(repsim(np.array([[np.nan, np.nan]]), np.array([[1.0, 2.0]]))).all()


def test_examples_without_targets_have_no_influence_and_change_no_other():
    model = adapted()
    train, test = examples([12, 7, 20]), examples([11, 6], seed=1)
    plain = influence(model, train, test)
    found = influence(model, [train[0], [5], *train[1:], []], [[], *test])
    for method in ("gradient_match", "datainf", "lissa"):
        assert np.isnan(found[method].values[[1, 4]]).all()
        assert np.isnan(found[method].values[:, 0]).all()
        kept = found[method].values[np.ix_([0, 2, 3], [1, 2])]
        np.testing.assert_allclose(kept, plain[method].values, rtol=1e-3, atol=1e-4 * np.abs(kept).max())
    assert np.isnan(found["repsim"].values[:, 0]).all()
    assert np.isnan(found["repsim"].values[4]).all()
    assert np.isfinite(found["repsim"].values[1, 1:]).all()


def test_delta_is_the_scaled_norm_of_the_adapters_product():
    model = adapted()
    norms = [
        (module.scaling["default"] * module.lora_B["default"].weight @ module.lora_A["default"].weight).norm().item()
        for module in model.modules()
        if hasattr(module, "lora_A") and hasattr(module, "scaling")
    ]
    # query_key_value, and both layers called dense (of attention and MLP: dense_h_to_4h is another name), in two layers.
    found = delta(model)
    assert found["layers"] == len(norms) == 4
    assert model.base_model.model.gpt_neox.layers[0].attention.dense.scaling["default"] == 3
    assert found["mean"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert found["std"] == pytest.approx(np.std(norms), rel=1e-4)
    with pytest.raises(MemtaxError, match="no LoRA adapter"):
        delta(base())


def test_accuracy_and_coverage():
    # Influences of 4 training examples (classes a, a, b, b) on 3 test examples; the least value is the most helpful.
    values = np.array([[-3.0, 1.0, np.nan], [-1.0, -2.0, np.nan], [-2.0, -1.0, np.nan], [0.0, 0.0, np.nan]])
    one = Influence("datainf", values, {})
    assert one.top(2).tolist()[:2] == [[0, 2], [1, 2]]
    # Test 0 (a): first is 0 (a): hit; top 2 = {0, 2}: half. Test 1 (b): first is 1 (a): miss; top 2 = {1, 2}: half.
    assert one.class_accuracy(list("aabb"), list("abb")) == [True, False, None]
    assert one.coverage(list("aabb"), list("abb")) == [0.5, 0.5, None]
    # RepSim: the largest cosine comes first.
    assert Influence("repsim", values, {}).top(1)[:2, 0].tolist() == [3, 0]
    assert one.coverage(list("aabb"), list("abc"))[2] is None


def test_training_on_an_example_makes_it_the_most_helpful():
    model = adapted(rank=4)
    train = examples([16] * 6, seed=3)
    found = influence(model, train, train, methods=["gradient_match", "datainf"])
    for one in found.values():
        assert one.top(1)[:, 0].tolist() == list(range(6))
        assert (one.values.diagonal() < 0).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    words = Tokenizer(models.WordLevel({"[UNK]": 0} | {f"w{i}": i for i in range(1, SIZE)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    base().save_pretrained(path / "base")
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["query_key_value"], init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(path / "base"), config)
    model.save_pretrained(path / "adapter")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(path / "adapter")
    return path


def write(path, sequences, first):
    rows = []
    for place, one in enumerate(sequences):
        answer = " ".join(f"w{token}" for token in one)
        rows.append({"sequence_id": first + place, "question": "w1 w2 w3", "answer": answer, "topic": "ab"[place % 2]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def files(folder):
    train = write(folder / "train.jsonl", examples([5 + i % 7 for i in range(70)]), 1000)
    test = write(folder / "test.jsonl", [*examples([6, 9, 8], seed=5), []], 2000)
    return train, test


def table(files, folder, output, **options):
    """Figures of `memtax influence`, which writes its tables into `output`."""
    common = {"column": "answer", "prompt_column": "question", "class_column": "topic"}
    model = str(folder / "adapter")
    return memtax.influence(train=files[0], test=files[1], model=model, output=output, **common, **options).figures


def test_tables_of_a_saved_adapter(folder, files, tmp_path):
    from memtax.lm.loading import load_model

    summary = table(files, folder, tmp_path / "out", per_tensor=True, top=3)
    model = load_model(folder / "adapter")
    prompt = [1, 2, 3]
    train = [prompt + one for one in examples([5 + i % 7 for i in range(70)])]
    test = [prompt + one for one in [*examples([6, 9, 8], seed=5), []]]
    scored = [[[t >= 3 for t in range(len(one))] for one in rows] for rows in (train, test)]
    expected = influence(model, train, test, train_scored=scored[0], test_scored=scored[1])
    matrices = load_file(tmp_path / "out" / "matrix.safetensors")
    assert matrices["train_ids"].tolist() == list(range(1000, 1070))
    pairs = read_table(tmp_path / "out", "influence")
    assert pairs.num_rows == 70 * 4
    for method, one in expected.items():
        scale = np.nanmax(np.abs(one.values))
        np.testing.assert_allclose(matrices[method].numpy(), one.values, rtol=1e-3, atol=1e-4 * scale)
        for name, values in one.tensors.items():
            np.testing.assert_allclose(matrices[f"{method}|{name}"], values, rtol=1e-3, atol=1e-3 * scale)
        column = pairs.column(method).to_pylist()
        # Test examples one after the other; the fourth has an empty answer: no target, but a last token.
        assert [value is None for value in column] == [place >= 210 and method != "repsim" for place in range(280)]
        assert column[71] == pytest.approx(matrices[method][1, 1].item())
    assert pairs.column("train_id").to_pylist()[71] == 1001
    assert pairs.column("test_id").to_pylist()[71] == 2001
    top = read_table(tmp_path / "out", "top").to_pylist()
    first = [row for row in top if row["method"] == "datainf" and row["test_id"] == 2000]
    assert [row["rank"] for row in first] == [1, 2, 3]
    assert [row["train_id"] - 1000 for row in first] == np.argsort(expected["datainf"].values[:, 0])[:3].tolist()
    assert summary["parameters"] == "lora"
    assert summary["without_a_token_to_predict"] == {"train": 0, "test": 1}
    assert summary["delta"]["layers"] == 2
    labels = ["ab"[i % 2] for i in range(70)], ["ab"[i % 2] for i in range(4)]
    hits = [hit for hit in expected["datainf"].class_accuracy(*labels) if hit is not None]
    assert summary["methods"]["datainf"]["accuracy"]["value"] == pytest.approx(np.mean(hits))
    shares = [share for share in expected["datainf"].coverage(*labels) if share is not None]
    assert summary["methods"]["datainf"]["coverage"]["value"] == pytest.approx(np.mean(shares))


def test_finished_parts_are_reused_and_others_refused(folder, files, tmp_path, monkeypatch):
    first = table(files, folder, tmp_path / "out", method=("datainf",))
    before = (tmp_path / "out" / "dataset" / "influence" / "train.parquet").read_bytes()
    (tmp_path / "out" / "dataset" / "influence" / "train.parquet").unlink()

    def never(*_, **__):
        raise AssertionError("captured again")

    monkeypatch.setattr("memtax.lm.gradients.capture", never)
    assert table(files, folder, tmp_path / "out", method=("datainf",)) == first
    assert (tmp_path / "out" / "dataset" / "influence" / "train.parquet").read_bytes() == before
    with pytest.raises(StaleOutputError, match="parameters"):
        table(files, folder, tmp_path / "out", method=("datainf",), parameters="all-linear")


@pytest.mark.parametrize("parameters", ["embeddings+head", "all-linear"])
def test_other_parameter_sets_through_files(folder, files, tmp_path, parameters, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_PART", 3)
    from memtax.lm.loading import load_model

    rows = [[1, 2, 3], [4, 5, 6, 7], [8], [9, 1, 9, 1, 9], [3, 2, 1]]
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, part in zip(paths, (rows, rows[::-1]), strict=True):
        path.write_text("".join(json.dumps({"tokens": one}) + "\n" for one in part))
    chosen = InfluenceSettings(str(folder / "base"), methods=("gradient_match", "datainf"), parameters=parameters)
    influence_table(Source.parse(str(paths[0])), Source.parse(str(paths[1])), chosen, tmp_path / "out")
    expected = influence(load_model(folder / "base"), rows, rows[::-1], methods=chosen.methods, parameters=parameters)
    found = load_file(tmp_path / "out" / "matrix.safetensors")
    for method, one in expected.items():
        np.testing.assert_allclose(found[method], one.values, rtol=1e-3, atol=1e-4 * np.nanmax(np.abs(one.values)))


def test_bad_settings_and_inputs_are_named(folder, files, tmp_path):
    with pytest.raises(MemtaxError, match="unknown influence method 'magic'"):
        InfluenceSettings("m", methods=("magic",))
    with pytest.raises(MemtaxError, match="no influence method"):
        InfluenceSettings("m", methods=())
    with pytest.raises(MemtaxError, match="top=0"):
        InfluenceSettings("m", top=0)
    with pytest.raises(MemtaxError, match="no column 'topics'"):
        influence_table(
            *(Source.parse(path, column="answer") for path in files),
            InfluenceSettings(str(folder / "adapter"), class_column="topics"),
            tmp_path / "out",
        )


def test_two_processes_agree_with_one(folder, files, tmp_path):
    options = ["--model", str(folder / "adapter"), "--column", "answer", "--class-column", "topic", "--output"]
    command = ["memtax", "influence", *files, *options]
    two = torchrun("-m", *command, tmp_path / "two")
    assert two.returncode == 0, two.stderr[-2000:]
    assert two.stdout.count("70 training examples on 4 test examples, parameters lora") == 1
    chosen = InfluenceSettings(str(folder / "adapter"), class_column="topic")
    influence_table(*(Source.parse(path, column="answer") for path in files), chosen, tmp_path / "one")
    one, other = (load_file(tmp_path / name / "matrix.safetensors") for name in ("one", "two"))
    assert one.keys() == other.keys()
    for name, values in one.items():
        scale = values.double().nan_to_num().abs().max().item()
        torch.testing.assert_close(other[name], values, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)
