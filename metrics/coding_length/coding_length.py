"""How well texts or token sequences compress by themselves."""

import datasets
import evaluate

import memtax.hub.modules
from memtax.errors import MemtaxError
from memtax.filters.compressibility import huffman_coding_length, shannon_coding_length

_DESCRIPTION = """
Mean code length of a sequence's symbols under their own frequencies: of the optimal prefix code (Huffman), and of the Shannon
code with lengths ceil(-log2 p), which the published data of the memorization taxonomy call Huffman. Sequences that compress
well are easier to memorize.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `str`, or of `list` of `int`): texts, whose characters are the symbols, or token ids. None is empty.
    tokenizer (`str`, *optional*): folder or Hub name of a tokenizer; the texts' tokens are then the symbols.
    per_example (`bool`): also return the lengths of each sequence. Defaults to `False`.

Returns:
    `huffman_coding_length`, `shannon_coding_length`: means over the sequences, in bits per symbol (a character or a token), at
    least 0; a sequence with entropy H has H <= Huffman < H + 1 and Huffman <= Shannon < H + 1.
    `sequences`: how many there are. `per_example` (on request): the same two names, one value per sequence.

Examples:
    >>> import evaluate, memtax
    >>> metric = evaluate.load(memtax.metric_path("coding_length"))
    >>> results = metric.compute(predictions=["aab", "aaaa"], per_example=True)
    >>> results["per_example"]["huffman_coding_length"], results["huffman_coding_length"]
    ([1.0, 0.0], 0.5)
    >>> round(metric.compute(predictions=[[1, 1, 2]])["shannon_coding_length"], 3)
    1.333
"""

_CITATION = """
@article{huffman1952method,
    title={A Method for the Construction of Minimum-Redundancy Codes},
    author={Huffman, David A.},
    journal={Proceedings of the IRE},
    volume={40},
    number={9},
    pages={1098--1101},
    year={1952}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CodingLength(memtax.hub.modules.Module):
    """Adapter over `memtax.filters.compressibility`."""

    def _info(self):
        tokens = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[datasets.Features({"predictions": kind}) for kind in (tokens, datasets.Value("string"))],
            reference_urls=["https://arxiv.org/abs/2406.17746"],
        )

    def _compute(self, predictions, tokenizer=None, per_example=False):
        if tokenizer is not None or not any(isinstance(row, str) for row in predictions):
            predictions = memtax.hub.modules.token_ids(predictions, tokenizer, "predictions")
        for number, row in enumerate(predictions):
            if not row:
                raise MemtaxError(f"predictions have no symbol in row {number}; drop empty and missing sequences first")
        found = {
            "huffman_coding_length": [huffman_coding_length(row) for row in predictions],
            "shannon_coding_length": [shannon_coding_length(row) for row in predictions],
        }
        means = {name: sum(values) / len(values) for name, values in found.items()}
        return {**means, "sequences": len(predictions), **({"per_example": found} if per_example else {})}
