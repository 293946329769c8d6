"""Bounds on the lengths of answers: what they forbid, that they do not wait for an accelerator, and numbers that are none."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from helpers import away
from helpers.small import WORDS, word_tokenizer
from memtax.errors import MemtaxError, RowError
from memtax.paraphrasing.answers import Generator, Job, LengthBounds

ENDS = [0, 3]


def allowed(scores, made, least, most):
    """One row's scores, token by token."""
    if made < least:
        return [-math.inf if token in ENDS else score for token, score in enumerate(scores)]
    if made > most:
        return [0.0 if token in ENDS else -math.inf for token in range(len(scores))]
    return scores


def test_ends_are_forbidden_before_the_minimum_and_all_else_after_the_maximum():
    bounds, copies, start = [(0, 1), (2, 2), (1, 4)], 2, 5
    processor = LengthBounds(bounds, copies, start, ENDS)
    for made in range(6):
        scores = torch.randn(len(bounds) * copies, 7)
        found = processor(torch.zeros(len(scores), start + made, dtype=torch.int64), scores).tolist()
        assert found == [allowed(row, made, *bounds[number // copies]) for number, row in enumerate(scores.tolist())]
    processor.check()


def test_a_token_does_not_wait_for_an_accelerator():
    processor = LengthBounds([(0, 1), (2, 3)], 1, 0, ENDS)
    with away.device():
        scores = away.Away(torch.randn(2, 7))
        with away.counted() as first:
            processor(torch.zeros(2, 0), scores)
        with away.counted() as others:
            for made in range(1, 6):
                processor(torch.zeros(2, made), scores)
        with away.counted() as checked:
            processor.check()
    assert first == {"sent": 2}
    assert not others
    assert checked == {"fetched": 1}


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_the_first_row_that_was_not_a_number_at_any_token_is_reported(number):
    processor = LengthBounds([(0, 9)] * 3, 2, 0, ENDS)
    for made, row in enumerate((None, 5, 3, None)):
        scores = torch.randn(6, 7)
        if row is not None:
            scores[row, made] = number
        found = processor(torch.zeros(6, made), scores)
        assert torch.multinomial(found.softmax(-1), 1).shape == (6, 1)
    with pytest.raises(RowError) as caught:
        processor.check()
    assert caught.value.row == 1


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "top_p": 0.9}, {"num_beams": 2}])
def test_a_prompt_with_scores_that_are_not_numbers_is_named(tmp_path, settings):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0))
    model.transformer.wte.weight.data[4] = math.nan
    model.lm_head.weight = torch.nn.Parameter(torch.randn(len(WORDS), 8))
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    generator = Generator(str(tmp_path), None)
    good, bad = Job(" ".join(WORDS[1:4]), 1, 4), Job(" ".join(WORDS[1:6]), 1, 4)
    assert len(generator.answers([good, good], 2, **settings)) == 2
    with pytest.raises(MemtaxError, match="not numbers") as caught:
        generator.answers([good, good, bad, good], 2, **settings)
    assert caught.value.row == 2
