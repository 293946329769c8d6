"""A tokenizer of few words, for tiny models of BERT's shape."""

import inspect
import tempfile
from pathlib import Path

from transformers import BertTokenizerFast


def word_pieces(*words, **options):
    """BERT's tokenizer for special tokens and these words, under transformers 4 and 5."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        name = "vocab" if "vocab" in inspect.signature(BertTokenizerFast.__init__).parameters else "vocab_file"
        return BertTokenizerFast(**{name: str(path)}, **options)
