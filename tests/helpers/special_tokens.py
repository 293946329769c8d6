"""Tokenizers that add BOS, EOS, both or neither by themselves, and a small model to read their ids."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["<s>", "</s>", "<unk>", "a", "b", *(f"w{number}" for number in range(35))]
BOS, EOS = 0, 1
KINDS = {"bos": "<s> $A", "eos": "$A </s>", "both": "<s> $A </s>", "none": "$A"}
ADDED = {"bos": (BOS,), "eos": (), "both": (BOS,), "none": ()}
"""What stands before a row of each by the rule `auto`."""


def tokenizer(kind):
    """All name both tokens, as GPT-NeoX does; only some add them."""
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.post_processor = TemplateProcessing(single=KINDS[kind], special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )


def model(positions=48, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
        initializer_range=0.5,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return LlamaForCausalLM(config).eval()


def save(kind, folder, **options):
    model(**options).save_pretrained(folder)
    tokenizer(kind).save_pretrained(folder)
    return str(folder)


def words(ids):
    return " ".join(WORDS[number] for number in ids)


def rows(count, length, seed=0):
    """Token ids of texts, special ones never among them, and no id twice in a text."""
    generator = torch.Generator().manual_seed(seed)
    return [(3 + torch.randperm(len(WORDS) - 3, generator=generator)[:length]).tolist() for _ in range(count)]
