"""Unusual models and adapters: the scores of their own forward pass, or one line that refuses them."""

import numpy as np
import pytest
import torch
import transformers
from peft import (
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM

from helpers.models import COMMON, GROUPED, VOCABULARY, build, random_sequences
from helpers.versions import older
from memtax.errors import ModelError
from memtax.lm.generation import generate
from memtax.lm.gradients import capture
from memtax.lm.loading import load_model
from memtax.lm.scores import score

DECODER = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "init_std": 0.3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "max_position_embeddings": 96,
    "is_decoder": True,
    "is_encoder_decoder": False,
}
LINEAR = {
    "head_dim": 8,
    "layer_types": ["linear_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
XLSTM = {
    "chunkwise_kernel": "chunkwise--native_autograd",
    "sequence_kernel": "native_sequence__native",
    "step_kernel": "native",
}
FAMILIES = {
    # One of the decoders that share their code, and the one with an attention of its own.
    **dict.fromkeys(("Bart", "BigBirdPegasus"), DECODER),
    "Jamba": {**GROUPED, "attn_layer_offset": 7, "num_experts": 1, "mamba_d_state": 4},
    "Qwen3_5Text": {**GROUPED, **LINEAR},
    "RecurrentGemma": {**COMMON, "lru_width": 32, "attention_window_size": 16},
    "Lfm2": {**GROUPED, "layer_types": ["conv", "conv"]},
    "xLSTM": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_heads": 4,
        "mode": "inference",
        **XLSTM,
    },
}
SPARSE = {
    **COMMON,
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "index_topk": 8,
}
"""Attends to 8 tokens that an indexer chooses; what it does with equals depends on what follows."""
XLNET = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
SEQUENCES = [*random_sequences([12, 30, 7]), random_sequences([91], 5)[0]]
SEQUENCES[1][8:10] = [55, 66]
ALORA = {} if older("peft", "0.18") else {"alora_invocation_tokens": [55, 66]}
ADAPTERS = {
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "p-tuning": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=16),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "alora": LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["c_attn"], **ALORA),
    "dora": LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["c_attn"], use_dora=True),
    "tokens": TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=[5, 55]),
    "lora": LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["c_attn"]),
}


def family(name, **changes):
    if name == "RecurrentGemma" and older("transformers", "5.4"):
        pytest.skip("RecurrentGemma keeps the state of the last batch in these versions of transformers")
    if not hasattr(transformers, f"{name}Config"):
        pytest.skip(f"this version of transformers does not have {name}")
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        getattr(transformers, f"{name}Config")(**{**FAMILIES.get(name, XLNET), **changes})
    ).eval()


def adapted(name):
    if name == "alora" and not ALORA:
        pytest.skip("this version of peft does not have activated LoRA")
    model = get_peft_model(build("gpt2"), ADAPTERS[name]).eval()
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn_like(parameter) * 0.3)
    return model


@torch.no_grad()
def own(model, ids):
    tokens = torch.tensor([ids])
    return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0, -len(ids) :]


def agree(model, sequences, places):
    scores = score(model, sequences)
    wide = model.double()
    for row, ids in enumerate(sequences):
        expected = own(wide, ids)[:-1].double().log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        np.testing.assert_allclose(scores.row(row)[0], expected, atol=places)


@pytest.mark.parametrize("name", FAMILIES)
def test_unusual_architectures_score_and_continue_as_by_their_own_forward_pass(name):
    if name == "Jamba" and older("transformers", "5.1"):
        pytest.skip("Jamba needs compiled kernels in these versions of transformers")
    model = family(name)
    ids = list(SEQUENCES[0])
    for _ in range(3):
        ids.append(int(own(model, ids)[-1].argmax()))
    assert generate(model, [SEQUENCES[0]], [3]) == [ids[-3:]]
    if name == "xLSTM":  # its kernels have no float64
        expected = own(model, ids)[:-1].log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        np.testing.assert_allclose(score(model, [ids]).row(0)[0], expected, atol=1e-4)
    else:
        agree(model, SEQUENCES[:3], 2e-4)


def test_models_that_see_later_tokens_or_cannot_run_are_refused_in_one_line():
    with pytest.raises(ModelError, match=r"^XLNetLMHeadModel attends to later tokens, so its log-prob.*; pass a causal model$"):
        score(family("XLNet", attn_type="bi"), SEQUENCES)
    with pytest.raises(ModelError, match=r"^XLNetLMHeadModel cannot run on 2 texts"):
        score(family("XLNet", attn_type="uni"), SEQUENCES)
    with pytest.raises(ModelError, match=r"^xLSTMForCausalLM cannot run on . texts of . tokens: .*chunk size") as caught:
        score(family("xLSTM", mode="train", chunk_size=7), SEQUENCES)
    assert "\n" not in str(caught.value)
    if hasattr(transformers, "DeepseekV32Config"):
        sparse = AutoModelForCausalLM.from_config(transformers.DeepseekV32Config(**SPARSE)).eval()
        with pytest.raises(ModelError, match=r"^DeepseekV32ForCausalLM attends to later tokens"):
            score(sparse, SEQUENCES)


def test_padding_makes_no_number_infinite_in_float64():
    """Gemma 2 takes its softmax in float32, in which the least number of float64 is infinite."""
    model = build("gemma2").double()
    scores = score(model, SEQUENCES)
    for row, ids in enumerate(SEQUENCES):
        expected = own(model, ids)[:-1].log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        np.testing.assert_allclose(scores.row(row)[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_score_as_by_their_own_forward_pass(name):
    agree(adapted(name), SEQUENCES, 2e-4)


def test_virtual_tokens_take_positions_from_texts():
    with pytest.raises(ModelError, match=r"has 92 tokens but the model has 91 positions"):
        score(adapted("prompt"), [[1] * 92])


@pytest.mark.parametrize("name", ["dora", "alora"])
def test_gradients_that_differ_from_autograd_are_refused_with_the_tensors_name(name):
    with pytest.raises(ModelError, match=r"the gradient of \S*c_attn\S* differs from autograd's"):
        capture(adapted(name), SEQUENCES[:2], parameters="all-linear")


@pytest.mark.parametrize("name", ["prompt", "p-tuning"])
def test_gradients_that_memtax_cannot_take_are_refused_in_one_line(name):
    with pytest.raises(ModelError, match=r"choose another parameter set$"):
        capture(adapted(name), SEQUENCES[:2], parameters="all-linear")


def test_a_backward_pass_that_fails_is_one_line():
    """The embedding's output is replaced by that of trained tokens, so that no gradient reaches it."""
    with pytest.raises(
        ModelError, match=r"^PeftModelForCausalLM gives no gradients of the parameter set 'embeddings\+head': \S"
    ):
        capture(adapted("tokens"), SEQUENCES[:2], parameters="embeddings+head")


@pytest.mark.parametrize("parameters", ["lora", "all-linear", "embeddings+head"])
def test_gradients_of_a_healthy_adapter_pass_the_check_and_leave_the_model_as_it_was(parameters):
    model = adapted("lora")
    asking = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kept = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    kept.grad = torch.ones_like(kept)
    assert len(capture(model, SEQUENCES[:2], parameters=parameters)) == 2
    assert asking == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in model.parameters() if parameter.grad is not None} == {id(kept)}
    assert bool((kept.grad == 1).all())


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_an_adapter_saved_with_resized_embeddings_loads(tmp_path, name):
    base = build(name)
    base.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(VOCABULARY + 3)
    targets = ["c_attn"] if name == "gpt2" else ["q_proj"]
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=targets, init_lora_weights=False)).eval()
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    ids = [VOCABULARY + 2, *SEQUENCES[0]]
    loaded = load_model(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(own(loaded, ids), own(model, ids))
