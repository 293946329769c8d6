"""Batched generation of paraphrases by causal and encoder-decoder models, each text within its own bounds of length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from memtax.errors import ModelError, RowError
from memtax.lm.generation import NO_NUMBERS, unusable
from memtax.lm.loading import load_tokenizer
from memtax.lm.memory import fitting, smaller
from memtax.lm.special_tokens import text_ids, tokenizer_bos, with_bos
from memtax.provenance import digest

if TYPE_CHECKING:
    from memtax.lm.resident import Placement


@dataclass(frozen=True)
class Job:
    """One prompt, and how many new tokens its answer may have.

    Attributes:
        prompt: the text.
        least: new tokens before which the answer cannot end.
        most: new tokens at which it ends.
    """

    prompt: str
    least: int
    most: int


@dataclass(frozen=True)
class Answer:
    """An answer and its number of tokens; one that its bound ended has a token more than the bound.

    Attributes:
        text: the answer.
        tokens: its length.
    """

    text: str
    tokens: int


class LengthBounds(LogitsProcessor):
    """End-of-sequence is impossible before a row's least tokens, and everything else is after its most."""

    def __init__(self, bounds: Sequence[tuple[int, int]], copies: int, start: int, ends: Sequence[int]) -> None:
        rows = torch.tensor([bound for bound in bounds for _ in range(copies)])
        self.least, self.most, self.start, self.ends, self.copies = rows[:, 0], rows[:, 1], start, list(ends), copies

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Mask the scores of the next token.

        Raises:
            RowError: they are not numbers; the row is that of the batch of prompts.
        """
        bad = unusable(scores)
        if bad.any():
            raise RowError(NO_NUMBERS, int(bad.nonzero()[0]) // self.copies)
        made = input_ids.shape[1] - self.start
        early, late = (self.least > made).to(scores.device), (self.most < made).to(scores.device)
        masked: Any = scores.clone()
        ends = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        ends[self.ends] = True
        masked[early[:, None] & ends] = -torch.inf
        masked[late[:, None] & ~ends] = -torch.inf
        masked[late[:, None] & ends] = 0.0
        return masked


class Generator:
    """A model that answers prompts."""

    def __init__(self, path: str, revision: str | None, placement: "Placement | None" = None) -> None:
        self.model = load(path, revision, placement)
        self.tokenizer = load_tokenizer(path, revision, own="answers")
        self.is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        self.ends = _ends(self.model, self.tokenizer)
        # Decoder-only models go on from the last place, so padding stands before.
        self.tokenizer.padding_side = "right" if self.is_encoder_decoder else "left"
        if self.tokenizer.pad_token_id is None:
            # Padding is masked, any token serves; the tokenizer may not know the model's own end.
            ends = self.tokenizer.convert_ids_to_tokens(self.ends[0]) if self.ends[0] < len(self.tokenizer) else None
            self.tokenizer.pad_token = ends or self.tokenizer.convert_ids_to_tokens(0)

    @property
    def room(self) -> int | None:
        """Positions for prompt and answer together (of an encoder: for the prompt); None where there is no limit."""
        return getattr(self.model.config, "max_position_embeddings", None) or getattr(self.model.config, "n_positions", None)

    def length(self, text: str) -> int:
        """Tokens of a text, special ones left out."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def prompt(self, template: str, text: str) -> str:
        """The prompt for a text, in the model's chat form if it has one."""
        # Not `format`: braces in templates and texts are characters like any other.
        filled = template.replace("{text}", text)
        if getattr(self.tokenizer, "chat_template", None):
            messages = [{"role": "user", "content": filled}]
            try:
                return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            except Exception as error:  # The template comes with the model: it may do anything, but stays in its sandbox.
                raise ModelError(f"the chat template of the tokenizer fails: {' '.join(str(error).split())[:200]}") from error
        return filled

    def fits(self, job: Job) -> bool:
        """Whether the model has positions for the prompt and the longest answer."""
        made = 0 if self.is_encoder_decoder else job.most + 1
        return self.room is None or self._encoded_length(job.prompt) + made <= self.room

    def _encoded_length(self, prompt: str) -> int:
        return len(self._encode([prompt])["input_ids"][0])

    def _encode(self, prompts: Sequence[str]) -> Any:
        # A chat template has put the special tokens in already. After an end-of-sequence that a tokenizer appends by itself a
        # decoder would begin another text: it gets what comes before the prompt alone.
        special = not getattr(self.tokenizer, "chat_template", None)
        if not special or self.is_encoder_decoder:
            return self.tokenizer(
                list(prompts), add_special_tokens=special, padding=True, return_tensors="pt", truncation=False, verbose=False
            )
        opening = tokenizer_bos(self.tokenizer)
        rows = [list(with_bos(ids, opening)) for ids in text_ids(self.tokenizer, prompts)]
        return self.tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")

    @torch.inference_mode()
    def answers(self, jobs: Sequence[Job], batch_size: int, returned: int = 1, **settings: Any) -> list[list[Answer]]:
        """`returned` answers to each prompt. Batches that do not fit into memory are halved.

        Args:
            jobs: prompts.
            batch_size: prompts at once.
            returned: answers per prompt.
            settings: of `generate`.
        """
        left = sorted(range(len(jobs)), key=lambda place: len(jobs[place].prompt))
        size = fitting(self.model, "answers", batch_size)
        found: list[list[Answer]] = [[] for _ in jobs]
        while left:
            places = left[:size]
            try:
                answers = self._batch([jobs[place] for place in places], returned, settings)
            except RowError as error:
                raise error.at(places[error.row]) from error
            except (RuntimeError, MemoryError) as error:
                # Counted in prompts: how long they are shows in the batch only.
                size = smaller(self.model, "answers", error, (len(places), 1))
                continue
            for place, texts in zip(places, answers, strict=True):
                found[place] = texts
            left = left[len(places) :]
        return found

    def _batch(self, jobs: Sequence[Job], returned: int, settings: dict[str, Any]) -> list[list[Answer]]:
        encoded = self._encode([job.prompt for job in jobs]).to(self.model.device)
        encoded.pop("token_type_ids", None)
        start = 1 if self.is_encoder_decoder else encoded["input_ids"].shape[1]
        # `generate` repeats each row: for every beam, or for every sampled answer.
        copies = max(settings.get("num_beams", 1), returned if settings.get("do_sample") else 1)
        bounds = LengthBounds([(job.least, job.most) for job in jobs], copies, start, self.ends)
        torch.manual_seed(int(digest([job.prompt for job in jobs])[:8], 16))
        output = self.model.generate(
            **encoded,
            max_new_tokens=max(job.most for job in jobs) + 1,
            num_return_sequences=returned,
            logits_processor=LogitsProcessorList([bounds]),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.ends,
            **settings,
        )
        answers = []
        for row in output[:, start:].tolist():
            stops = [place for place, token in enumerate(row) if token in self.ends]
            cut = row[: stops[0]] if stops else row
            answers.append(Answer(self.tokenizer.decode(cut, skip_special_tokens=True), len(cut)))
        return [answers[first : first + returned] for first in range(0, len(answers), returned)]


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer.

    Raises:
        ModelError: neither model nor tokenizer names one.
    """
    found = model.generation_config.eos_token_id
    found = tokenizer.eos_token_id if found is None else found
    if found is None:
        raise ModelError("the paraphraser names no end-of-sequence token, so that no answer would end; choose another model")
    return list(found) if isinstance(found, (list, tuple)) else [int(found)]


def load(path: str, revision: str | None, placement: "Placement | None" = None) -> Any:
    """A causal or an encoder-decoder model."""
    from transformers import AutoConfig

    from memtax.lm import resident

    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception:
        # An adapter has no configuration of its own, and what is not there is said better by `resident.get`.
        config = None
    is_causal = config is None or not config.is_encoder_decoder
    return (resident.get if is_causal else resident.sequence_to_sequence)(path, revision, placement)
