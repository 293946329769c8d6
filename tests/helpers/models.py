"""Small random models of the architectures under test, and a slow oracle that knows nothing of memtax."""

import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    RecurrentGemmaConfig,
)

from helpers.versions import older

HYPERCLOVAX = hasattr(transformers, "HyperCLOVAXConfig")
VOCABULARY = 101
POSITIONS = 96
IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    # Large weights: soft-capping and scaling must show in the logits.
    "initializer_range": 0.3,
    **IDS,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}


def configurations():
    return {
        "gpt_neox": GPTNeoXConfig(**COMMON, tie_word_embeddings=False),
        "gpt2": GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=POSITIONS, initializer_range=0.3, **IDS
        ),
        "llama": LlamaConfig(**GROUPED, tie_word_embeddings=False),
        "llama_tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
        "gemma2": Gemma2Config(**GROUPED, head_dim=8, final_logit_softcapping=3.0, sliding_window=16),
        "cohere": CohereConfig(**GROUPED, logit_scale=0.25),
        # The same name in two configurations: one divides by it, the other multiplies.
        "granite": GraniteConfig(**GROUPED, logits_scaling=4.0),
        # transformers 4.57 does not have it.
        **({"hyperclovax": transformers.HyperCLOVAXConfig(**GROUPED, logits_scaling=4.0)} if HYPERCLOVAX else {}),
        # Caps its logits under another name: only its own forward pass knows.
        "recurrent_gemma": RecurrentGemmaConfig(
            **{**COMMON, "num_hidden_layers": 3}, lru_width=32, attention_window_size=16, logits_soft_cap=3.0
        ),
    }


def build(name, seed=0, **changes):
    torch.manual_seed(seed)
    if name == "recurrent_gemma" and older("transformers", "5.4"):
        pytest.skip("RecurrentGemma keeps the state of the last batch in these versions of transformers")
    configuration = configurations()[name]
    configuration.update(changes)
    # Some versions choose a kernel that leaves out Gemma 2's cap.
    more = {"attn_implementation": "eager"} if name == "gemma2" else {}
    return AutoModelForCausalLM.from_config(configuration, **more).eval()


@torch.no_grad()
def oracle(model, sequence):
    """Log-probability (float64) and argmax match of tokens 1.. of a sequence, by the model's own pass on its device."""
    if len(sequence) < 2:
        return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.bool)
    logits = model(input_ids=torch.tensor([sequence], device=model.device)).logits[0, :-1].cpu()
    targets = torch.tensor(sequence[1:])
    logprobs = logits.double().log_softmax(-1)
    return logprobs[torch.arange(len(targets)), targets], logits.argmax(-1) == targets


def random_sequences(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
