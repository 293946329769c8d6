"""Models whose scores are known in closed form, and a tokenizer of whole words."""

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<end>", *(f"w{number}" for number in range(19)), *(f"W{number}" for number in range(12))]
VOCABULARY = len(WORDS)


def word_tokenizer(words=WORDS):
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=words[0], unk_token=words[0])


def transitions(seed=0):
    """Next-token probabilities (vocabulary, vocabulary), float64."""
    return np.random.default_rng(seed).dirichlet(np.full(VOCABULARY, 0.5), VOCABULARY) * 0.98 + 0.02 / VOCABULARY


def bigram_model(probabilities, positions=64):
    """A model without layers: its logits after token t are log probabilities[t], whatever stands before."""
    size = len(probabilities)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=0,
        num_attention_heads=1,
        max_position_embeddings=positions,
        rms_norm_eps=1e-12,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # The norm turns the one-hot embedding into sqrt(size) at one place.
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.copy_(torch.tensor(np.log(probabilities).T / np.sqrt(size)))
    return model.eval()


def save(model, folder, words=WORDS):
    model.save_pretrained(folder)
    word_tokenizer(words).save_pretrained(folder)
    return str(folder)


def random_texts(count, length, seed=0, words=WORDS):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words[1:], length)) for _ in range(count)]


def ids(text):
    return [WORDS.index(word) for word in text.split()]


def batch(texts, domain="all"):
    """What the attack filter reads, for whole texts."""
    return {
        "text": list(texts),
        "tokens": [None if text is None else ids(text) for text in texts],
        "chunk_start": [None] * len(texts),
        "chunk_end": [None] * len(texts),
        "domain": [domain] * len(texts),
    }
