"""Batched generation of paraphrases by causal and encoder-decoder models, with length bounds for each text."""

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
    """One prompt, with bounds on the number of new tokens in its answer.

    Attributes:
        prompt: the text.
        least: minimum number of new tokens.
        most: maximum number of new tokens.
    """

    prompt: str
    least: int
    most: int


@dataclass(frozen=True)
class Answer:
    """An answer and its number of tokens, which is one above the maximum if the answer was cut there.

    Attributes:
        text: the answer.
        tokens: number of tokens.
    """

    text: str
    tokens: int


class LengthBounds(LogitsProcessor):
    """Forbids end-of-sequence before a row's minimum length, and everything else after its maximum length.

    Rows with scores that are not numbers go on with equal scores, which any sampler accepts; `check` reports them after the
    last token, because finding them waits for an accelerator.
    """

    def __init__(self, bounds: Sequence[tuple[int, int]], copies: int, start: int, ends: Sequence[int]) -> None:
        self.rows = torch.tensor([bound for bound in bounds for _ in range(copies)])
        self.start, self.ends, self.copies = start, list(ends), copies
        self.is_end = torch.zeros(0, dtype=torch.bool)
        self.bad: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Mask the scores of the next token."""
        if len(self.is_end) != scores.shape[1]:
            self.is_end = torch.zeros(scores.shape[1], dtype=torch.bool).index_fill_(0, torch.tensor(self.ends), True)
            self.is_end, self.rows = self.is_end.to(scores.device), self.rows.to(scores.device)
        bad = unusable(scores)
        self.bad = bad if self.bad is None else self.bad | bad
        made = input_ids.shape[1] - self.start
        early, late = (self.rows[:, 0] > made)[:, None], (self.rows[:, 1] < made)[:, None]
        masked = scores.masked_fill(bad[:, None], 0.0).masked_fill(torch.where(self.is_end, early, late), -torch.inf)
        found: Any = masked.masked_fill(late & self.is_end, 0.0)
        return found

    def check(self) -> None:
        """Reject a batch with scores that were not numbers.

        Raises:
            RowError: there is one; the row is an index in the batch of prompts.
        """
        bad = [] if self.bad is None else self.bad.tolist()
        if True in bad:
            raise RowError(NO_NUMBERS, bad.index(True) // self.copies)


class Generator:
    """A model that answers prompts."""

    def __init__(self, path: str, revision: str | None, placement: "Placement | None" = None) -> None:
        self.model = load(path, revision, placement)
        self.tokenizer = load_tokenizer(path, revision, own="answers")
        self.is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        self.ends = _ends(self.model, self.tokenizer)
        # Decoder-only models continue from the last position, so the padding is on the left.
        self.tokenizer.padding_side = "right" if self.is_encoder_decoder else "left"
        if self.tokenizer.pad_token_id is None:
            # Padding is masked, so any token can be used; the tokenizer may not know the model's own end token.
            ends = self.tokenizer.convert_ids_to_tokens(self.ends[0]) if self.ends[0] < len(self.tokenizer) else None
            self.tokenizer.pad_token = ends or self.tokenizer.convert_ids_to_tokens(0)

    @property
    def room(self) -> int | None:
        """Maximum positions for prompt and answer together (in encoders: for the prompt); None if there is no limit."""
        return getattr(self.model.config, "max_position_embeddings", None) or getattr(self.model.config, "n_positions", None)

    def length(self, text: str) -> int:
        """Number of tokens in a text, without special tokens."""
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def prompt(self, template: str, text: str) -> str:
        """The prompt for a text, in the model's chat format if it has one."""
        # `format` would interpret braces in templates and texts.
        filled = template.replace("{text}", text)
        if getattr(self.tokenizer, "chat_template", None):
            messages = [{"role": "user", "content": filled}]
            try:
                return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            except Exception as error:  # The template comes with the model and may fail in any way, but runs in a sandbox.
                raise ModelError(f"the chat template of the tokenizer fails: {' '.join(str(error).split())[:200]}") from error
        return filled

    def fits(self, job: Job) -> bool:
        """Whether the model has enough positions for the prompt and the longest answer."""
        made = 0 if self.is_encoder_decoder else job.most + 1
        return self.room is None or self._encoded_length(job.prompt) + made <= self.room

    def _encoded_length(self, prompt: str) -> int:
        return len(self._encode([prompt])["input_ids"][0])

    def _encode(self, prompts: Sequence[str]) -> Any:
        # A chat template already includes the special tokens. After an end-of-sequence appended by a tokenizer, a decoder would
        # start another text, so only the tokens put before a text are added.
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
        """`returned` answers per prompt. Batches that do not fit into memory are halved.

        Args:
            jobs: prompts.
            batch_size: prompts per batch.
            returned: answers per prompt.
            settings: arguments of `generate`.
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
                # Counted in prompts, because their lengths are known only in the batch.
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
        # `generate` repeats each row, for every beam or for every sampled answer.
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
        bounds.check()
        answers = []
        for row in output[:, start:].tolist():
            stops = [place for place, token in enumerate(row) if token in self.ends]
            cut = row[: stops[0]] if stops else row
            answers.append(Answer(self.tokenizer.decode(cut, skip_special_tokens=True), len(cut)))
        return [answers[first : first + returned] for first in range(0, len(answers), returned)]


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer.

    Raises:
        ModelError: neither the model nor the tokenizer defines one.
    """
    found = model.generation_config.eos_token_id
    found = tokenizer.eos_token_id if found is None else found
    if found is None:
        raise ModelError("the paraphraser has no end-of-sequence token, so no answer would end; choose another model")
    return list(found) if isinstance(found, (list, tuple)) else [int(found)]


def load(path: str, revision: str | None, placement: "Placement | None" = None) -> Any:
    """A causal or an encoder-decoder model."""
    from transformers import AutoConfig

    from memtax.lm import resident

    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    except Exception:
        # An adapter has no configuration of its own, and `resident.get` reports missing files best.
        config = None
    is_causal = config is None or not config.is_encoder_decoder
    return (resident.get if is_causal else resident.sequence_to_sequence)(path, revision, placement)
