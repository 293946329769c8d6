"""Gradient kernels in float64 against autograd, one text at a time, by plain `transformers`."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, CTRLConfig, GPTJConfig, MambaConfig, MixtralConfig, OPTConfig

from helpers.models import POSITIONS, build, random_sequences
from helpers.versions import older
from memtax.errors import MemtaxError, ModelError
from memtax.lm import _kernels, gradients
from memtax.lm.gradients import capture

LENGTHS = (12, 1, 30, 2, 0, 7, 7)
NAMES = ("gpt_neox", "gpt2", "llama", "llama_tied", "gemma2", "cohere", "granite", "recurrent_gemma")


def double(name, **changes):
    model = build(name, **changes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases start at zero: their gradients must not be zero for that reason, nor anything they multiply.
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def lora(name, targets, **options):
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, init_lora_weights=False, target_modules=targets, **options)
    return get_peft_model(double(name), config).double().eval()


def with_head_bias():
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": POSITIONS, "vocab_size": 101}
    model = AutoModelForCausalLM.from_config(GPTJConfig(**sizes, bos_token_id=None, eos_token_id=None)).eval().double()
    with torch.no_grad():
        model.lm_head.bias.add_(torch.randn(101))
    return model


def oracle(model, names, sequences, scored=None):
    """Gradients of the mean loss, written out: name to (examples, numbers)."""
    tensors = {name: parameter for name, parameter in model.named_parameters() if name in names}
    rows = {name: [] for name in names}
    flags = {name: tensor.requires_grad for name, tensor in tensors.items()}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    for index, sequence in enumerate(sequences):
        counted = [True] * len(sequence) if scored is None else scored[index]
        places = [t for t in range(1, len(sequence)) if counted[t]]
        if not places:
            for name, tensor in tensors.items():
                rows[name].append(torch.zeros_like(tensor).flatten())
            continue
        logits = model(input_ids=torch.tensor([sequence])).logits[0]
        losses = [-logits[t - 1].double().log_softmax(-1)[sequence[t]] for t in places]
        found = torch.autograd.grad(sum(losses) / len(losses), list(tensors.values()), allow_unused=True)
        for (name, tensor), gradient in zip(tensors.items(), found, strict=True):
            rows[name].append((torch.zeros_like(tensor) if gradient is None else gradient).flatten())
    for name, tensor in tensors.items():
        tensor.requires_grad_(flags[name])
    return {name: torch.stack(values).numpy() for name, values in rows.items()}


def agree(model, parameters, sequences, scored=None, **options):
    """Every tensor's Gram matrix, in both ways, its norms and its products with the first example."""
    found = capture(model, sequences, parameters=parameters, scored=scored, **options)
    expected = oracle(model, list(found.kernels), sequences, scored)
    for name, gradient in expected.items():
        assert found.sizes[name] == gradient.shape[1], name
    grams = {name: gradient @ gradient.T for name, gradient in expected.items()}
    results = [found.gram()]
    norms, first = found.star()
    for kernel in found.kernels.values():
        outer = kernel.head if isinstance(kernel, _kernels.Tied) else kernel
        if isinstance(outer, _kernels.Outer):
            np.testing.assert_allclose(outer.gram_by_rows(outer), outer.gram_by_gradients(outer), rtol=1e-9, atol=1e-13)
    # float64: eps 2e-16, sums of at most 101 * 96 terms, relative to the largest entry. Gemma 2's layers go through float32
    # (eps 6e-8) in their norms and their attention, whatever the weights' type.
    relative = 1e-6 if model.config.model_type == "gemma2" else 1e-10 if older("transformers", "5") else 1e-11
    for name, gram in grams.items():
        tolerance = relative * max(gram.diagonal().max(), 1e-3)
        for result in results:
            np.testing.assert_allclose(result[name], gram, rtol=0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(norms[name], gram.diagonal(), rtol=0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(first[name], gram[0], rtol=0, atol=tolerance, err_msg=name)
        assert gram.any(), name
    return found, grams


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parameters", ["head", "embeddings+head", "all-linear"])
def test_kernels_equal_autograd(name, parameters):
    found, _ = agree(double(name), parameters, random_sequences(LENGTHS))
    assert found.targets == (11, 0, 29, 1, 0, 6, 6)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_layers_as_factors_equal_autograd(name, monkeypatch):
    # So small layers are written out by themselves.
    monkeypatch.setattr(gradients, "_FLAT", 0)
    found, _ = agree(double(name), "all-linear", random_sequences(LENGTHS))
    assert sum(isinstance(kernel, _kernels.Outer) for kernel in found.kernels.values()) >= 8


def test_the_sets_hold_what_they_say():
    def names(model, parameters):
        return set(capture(model, [[1, 2, 3]], parameters=parameters).kernels)

    neox = double("gpt_neox")
    assert names(neox, "head") == {"embed_out.weight"} or names(neox, "head") == {"lm_head.weight"}
    assert len(names(neox, "embeddings+head")) == 2
    # Four maps with biases in each of two layers, and the head.
    assert len(names(neox, "all-linear")) == 2 * 4 * 2 + 1
    # Tied: one tensor, whichever set asks for it.
    tied = double("llama_tied")
    assert names(tied, "head") == names(tied, "embeddings+head") == {"model.embed_tokens.weight"}
    adapted = lora("gpt_neox", ["query_key_value"])
    assert len(names(adapted, "lora")) == 2 * 2
    assert all("lora_" in name for name in names(adapted, "lora"))
    assert not any("lora_" in name for name in names(adapted, "all-linear"))


@pytest.mark.parametrize("parameters", ["head", "embeddings+head"])
def test_a_biased_head_gives_the_bias_a_tensor_of_its_own(parameters):
    found, _ = agree(with_head_bias(), parameters, random_sequences(LENGTHS))
    assert "lm_head.bias" in found.kernels


@pytest.mark.parametrize(
    ("name", "targets"),
    [("gpt_neox", ["query_key_value", "dense"]), ("gpt2", ["c_attn"]), ("llama", ["q_proj", "lm_head"])],
)
def test_lora_kernels_equal_autograd(name, targets):
    options = {"lora_bias": True} if name == "gpt_neox" else {}
    agree(lora(name, targets, **options), "lora", random_sequences(LENGTHS))


def test_base_weights_below_an_adapter_equal_autograd():
    model = lora("llama", ["q_proj", "lm_head"])
    agree(model, "head", random_sequences(LENGTHS))
    agree(model, "embeddings+head", random_sequences(LENGTHS))


@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "llama_tied"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_masked_targets_on_either_padding_side(name, side):
    sequences = random_sequences(LENGTHS)
    generator = np.random.default_rng(0)
    scored = [(generator.random(len(sequence)) < 0.4).tolist() for sequence in sequences]
    scored[2] = [False] * 29 + [True]
    scored[0] = [True] + [False] * 11  # the first token has nothing before it: no target
    found, _ = agree(double(name), "embeddings+head", sequences[::-1], scored[::-1], padding_side=side)
    assert found.targets[4] == 1
    assert found.targets[6] == 0


def test_padding_token_ids_and_repeated_tokens():
    # torch gives the padding token's embedding no gradient, but the head's row of that token has one.
    model = double("llama_tied", pad_token_id=3)
    sequences = [[3, 3, 5, 3, 9, 5], [3, 3, 3], [5, 3, 5, 5, 5]]
    agree(model, "embeddings+head", sequences)
    agree(double("llama", pad_token_id=3), "embeddings+head", sequences)


def test_texts_longer_than_the_model_is_wide():
    # 96 tokens at width 32: the gradients themselves, a block at a time, are cheaper for the head.
    model = double("gpt_neox")
    sequences = random_sequences([POSITIONS, 80, POSITIONS])
    found, _ = agree(model, "embeddings+head", sequences)
    head = found.kernels[[name for name in found.kernels if "emb" not in name or "out" in name][-1]]
    rows = sum(head.lengths)
    assert not head._rows_are_cheaper(rows * rows, rows, 9)
    short = capture(model, random_sequences([8, 8]), parameters="head").kernels
    head = next(iter(short.values()))
    assert head._rows_are_cheaper(16 * 16, 16, 4)


def test_small_tiles_and_blocks(monkeypatch):
    monkeypatch.setattr(_kernels, "_HELD", 600)
    monkeypatch.setattr(_kernels, "_EXAMPLES", 2)
    monkeypatch.setitem(gradients._CHUNK_LOGITS, "cpu", 1)
    for name in ("gpt_neox", "llama_tied", "gemma2"):
        agree(double(name), "embeddings+head", random_sequences([40, *LENGTHS]), batch_tokens=64)


@pytest.mark.parametrize("name", ["gpt_neox", "llama_tied", "gemma2"])
def test_kept_errors_are_the_recomputed_ones(name):
    model, sequences = double(name), random_sequences(LENGTHS)
    kept, _ = agree(model, "embeddings+head", sequences, keep_errors=True)
    again = capture(model, sequences)
    held = [getattr(kernel, "head", kernel) for kernel in kept.kernels.values()]
    assert any(isinstance(kernel, _kernels.Outer) and isinstance(kernel.errors, _kernels.Held) for kernel in held)
    for key, gram in kept.gram().items():
        np.testing.assert_allclose(gram, again.gram()[key], rtol=0, atol=1e-12 * np.abs(gram).max())


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    batch_tokens=st.integers(1, 300),
    side=st.sampled_from(["left", "right"]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=15, deadline=None)
def test_order_batch_size_and_padding_do_not_matter(lengths, batch_tokens, side, seed):
    model = double("gpt_neox")
    sequences = random_sequences(lengths, seed)
    gram = capture(model, sequences).gram()
    order = np.random.default_rng(seed).permutation(len(sequences))
    shuffled = capture(model, [sequences[i] for i in order], batch_tokens=batch_tokens, padding_side=side).gram()
    for name in gram:
        np.testing.assert_allclose(shuffled[name], gram[name][np.ix_(order, order)], rtol=0, atol=1e-10)


def test_two_sets_of_examples_and_parts_of_them():
    model = double("llama")
    first, second = random_sequences([9, 4, 20], seed=1), random_sequences([5, 17], seed=2)
    both = capture(model, [*first, *second], parameters="all-linear").gram()
    cross = capture(model, first, parameters="all-linear").gram(capture(model, second, parameters="all-linear"))
    whole = capture(model, [*first, *second], parameters="all-linear")
    for name in both:
        np.testing.assert_allclose(cross[name], both[name][:3, 3:], rtol=0, atol=1e-12)
        np.testing.assert_allclose(whole.part(1, 3).gram(whole.part(4, 5))[name], both[name][1:3, 4:], rtol=0, atol=1e-12)
        np.testing.assert_allclose(whole.norms()[name], both[name].diagonal(), rtol=1e-10, atol=1e-13)


def test_float32_is_close_and_half_precision_usable():
    sequences = random_sequences(LENGTHS)
    exact = capture(build("llama").double(), sequences).gram()
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.15)):
        found = capture(build("llama").to(dtype), sequences).gram()
        for name in exact:
            assert np.abs(found[name] - exact[name]).max() < tolerance * exact[name].max(), (dtype, name)


def test_the_model_is_left_as_it_was():
    model = double("gpt2").train()
    flags = {name: index % 2 == 0 for index, (name, _) in enumerate(model.named_parameters())}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    capture(model, random_sequences(LENGTHS), parameters="all-linear")
    assert model.training
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == flags[name]
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.long
def test_a_text_of_ten_thousand_tokens():
    torch.manual_seed(0)
    model = build("gpt_neox", max_position_embeddings=10_000, num_hidden_layers=1, num_attention_heads=1)
    sequences = [*random_sequences([10_000]), *random_sequences([30], seed=3)]
    norms, first = capture(model, sequences).star()
    expected = oracle(model, list(norms), sequences)
    for name, gradient in expected.items():
        np.testing.assert_allclose(norms[name], (gradient.astype(np.float64) ** 2).sum(1), rtol=1e-3, err_msg=name)
        np.testing.assert_allclose(first[name][1], gradient[0].astype(np.float64) @ gradient[1], rtol=2e-3, atol=1e-6)


def small(configuration):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(configuration).eval()


def test_layers_that_see_all_positions_in_a_row():
    # OPT flattens (batch, length) before its feed-forward layers.
    sizes = {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "word_embed_proj_dim": 16}
    model = small(OPTConfig(**sizes, vocab_size=101, max_position_embeddings=POSITIONS)).double()
    found = capture(model, random_sequences(LENGTHS), parameters="all-linear")
    name = "model.decoder.layers.0.fc1.weight"
    expected = oracle(model, [name], random_sequences(LENGTHS))[name]
    np.testing.assert_allclose(found.gram()[name], expected @ expected.T, atol=1e-12)


def test_layers_without_a_kernel_are_refused_rather_than_zero():
    mamba = small(MambaConfig(vocab_size=101, hidden_size=16, num_hidden_layers=1, state_size=4))
    refused = ""
    try:  # Some versions of transformers call the layer.
        agree(mamba.double(), "all-linear", [[1, 2, 3]])
    except ModelError as error:
        refused = str(error)
    assert not refused or "dt_proj.weight without calling its layer" in refused
    assert not any(parameter.grad is not None for parameter in mamba.parameters())
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = small(MixtralConfig(**sizes, num_key_value_heads=2, vocab_size=101, num_local_experts=2))
    # Some versions have a layer per expert, which receives tokens of all texts at once.
    with pytest.raises(ModelError, match=r"all experts|examples cannot be separated"):
        capture(experts, [[1, 2, 3]], parameters="all-linear")


@pytest.mark.parametrize("parameters", ["head", "embeddings+head", "all-linear"])
def test_a_head_that_an_adapter_trains_a_copy_of(parameters):
    agree(lora("llama", ["q_proj"], modules_to_save=["lm_head"]), parameters, random_sequences(LENGTHS))


def test_targets_whose_probability_underflows():
    # Logits thousands apart: exp underflows in float32 at 104 nats.
    model = build("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1000)
    sequences = random_sequences((9, 9))
    name = next(name for name, one in model.named_parameters() if one is model.get_output_embeddings().weight)
    found = capture(model, sequences, parameters="head").gram()[name]
    expected = oracle(model.double(), [name], sequences)[name]
    np.testing.assert_allclose(found, expected @ expected.T, rtol=1e-4)


def test_what_cannot_be_is_said():
    model = build("gpt_neox")
    with pytest.raises(ModelError, match="unknown parameter set 'adapters'"):
        capture(model, [[1, 2]], parameters="adapters")
    with pytest.raises(ModelError, match="no tensors of the set 'lora'"):
        capture(model, [[1, 2]], parameters="lora")
    with pytest.raises(ModelError, match="token id 101 in row 1"):
        capture(model, [[1, 2], [1, 101]])
    with pytest.raises(ModelError, match=f"row 0 has {POSITIONS + 1} tokens"):
        capture(model, [[1] * (POSITIONS + 1)])
    with pytest.raises(MemtaxError, match="an entry for every token"):
        capture(model, [[1, 2]], scored=[[True]])
    with pytest.raises(MemtaxError, match="no sequences"):
        capture(model, [])
    embedded = lora("llama", ["embed_tokens"])
    with pytest.raises(ModelError, match=r"no tensors of the set 'lora'|does not belong to a linear map"):
        capture(embedded, [[1, 2]], parameters="lora")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("parameters", ["embeddings+head", "all-linear"])
def test_kernels_on_a_gpu_are_those_of_the_cpu(parameters):
    sequences = random_sequences(LENGTHS)
    for name in ("gpt_neox", "llama_tied", "recurrent_gemma"):
        expected = capture(double(name), sequences, parameters=parameters).gram()
        found = capture(double(name).cuda(), sequences, parameters=parameters).gram()
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=1e-6 * np.abs(expected[key]).max())


@pytest.mark.parametrize("parameters", ["embeddings+head", "all-linear"])
def test_running_out_of_memory_halves_the_batch(parameters):
    model, sequences = build("llama_tied"), random_sequences([12, 30, 1, 7, 30, 22, 9, 2])
    expected, sizes = capture(model, sequences, parameters=parameters).gram(), []

    def too_small(module, inputs, kwargs):
        sizes.append(kwargs["input_ids"].numel())
        if sizes[-1] > 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")

    model.base_model.register_forward_pre_hook(too_small, with_kwargs=True)
    found = capture(model, sequences, parameters=parameters).gram()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6 * np.abs(values).max())
    # 8 rows of 30 tokens do not fit, nor do 4; 2 do, and that is remembered.
    assert sizes[:3] == [240, 120, 60]
    sizes.clear()
    capture(model, sequences, parameters=parameters)
    assert max(sizes) == 60
    with pytest.raises(ModelError, match="8 sequences of 30 tokens do not fit into memory"):
        capture(model, sequences, parameters=parameters, batch_tokens=240)


def test_a_model_that_scales_its_embeddings_in_place():
    torch.manual_seed(0)
    configuration = CTRLConfig(vocab_size=101, n_embd=32, dff=48, n_layer=1, n_head=4, n_positions=POSITIONS)
    agree(AutoModelForCausalLM.from_config(configuration).eval().double(), "embeddings+head", random_sequences(LENGTHS))
