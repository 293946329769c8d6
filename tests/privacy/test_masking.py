"""Personal data never stands in a masked text, wherever the text is cut; what is counted is what is valid in the document."""

import itertools
import random
import re
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from memtax import privacy
from memtax.corpus.sources import Source
from memtax.privacy import Finding

pytest.importorskip("phonenumbers", reason="the extra pii is not installed")
pytest.importorskip("stdnum", reason="the extra pii is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from helpers.personal_data import FORMS, MAKERS, records

SEPARATORS = " \t\r\n-./()"


def longest_run(text):
    """Most digits in a row, whatever spaces and simple punctuation stand between them: a loop over characters."""
    longest = run = 0
    for character in re.sub(r"\[[a-zA-Z ]+, [0-9]+ characters\]", "x", text):
        if unicodedata.decimal(character, None) is not None:
            run += 1
            longest = max(longest, run)
        elif character not in SEPARATORS:
            run = 0
    return longest


def test_no_cut_of_a_document_shows_a_number_or_an_address():
    for kind, form, value, document in records(96, seed=3):
        hidden = privacy.cover(document, privacy.find(document))
        place = document.index(value)
        for cut in range(place - 1, place + len(value) + 2):
            for start, end in ((0, cut), (cut, len(document))):
                window = document[start:end]
                shown = privacy.mask(window, privacy.cover(window, privacy.window_spans(hidden, (start, end))))
                assert longest_run(shown) <= 4, (kind, form, document, cut, shown)
                assert kind != "email" or "@" not in shown, (form, document, cut, shown)


def test_a_part_of_an_unknown_document_shows_no_number_and_no_address():
    """Without the document: what the ends may have cut is masked as well."""
    for kind, form, value, document in records(96, seed=4):
        place = document.index(value)
        for cut in range(place + 1, place + len(value)):
            for window in (document[:cut], document[cut:]):
                shown = privacy.mask_text(window, open_ends=True)
                assert longest_run(shown) <= 4, (kind, form, document, cut, shown)
                assert kind != "email" or "@" not in shown, (form, document, cut, shown)


ACCOUNT = "DE89370400440532013000"
SEPARATED = [
    *(
        "\n> ",
        "\u00a0",
        "&nbsp;",
        "\\u00a0",
        "</td><td>",
        '", "',
        "_",
        "\t",
        "=\n",
        "`, `",
        "%20",
        "+",
        "\x00",
        " = ",
        "#",
        "<b>",
    ),
    *("\u200d", "\u00ad", " \u2013 ", " | ", "\u3000", "\ufe0f\u20e3"),
    *(
        "&#160;",
        "&#x2009;",
        "&amp;nbsp;",
        "%2D",
        "%2520",
        "\\u{2009}",
        "<!-- -->",
        '</span><span class="d2">',
        "\x1b[0m",
        "-\n",
    ),
]
SPELLINGS = [
    *("li-wei [at] nordwind [dot] io", "li-wei (at) nordwind.io", "li-wei%40nordwind.io", "li-wei&#64;nordwind.io"),
    *(
        "li-wei&#x40;nordwind.io",
        "li-wei\\u0040nordwind.io",
        '"li-wei"@nordwind.io',
        "li-wei[@]nordwind.io",
        "li-wei(a)nordwind.io",
    ),
    *(
        "li-wei *at* nordwind *dot* photography",
        "li-wei |at| nordwind |dot| io",
        "li-wei (\u0441\u043e\u0431\u0430\u043a\u0430) nordwind.io",
    ),
    *("li-wei<wbr>@<wbr>nordwind.io", "li-wei@nord-\nwind.io", "&#108;i-wei&#64;nordwind&#46;io", "li-wei&amp;#64;nordwind.io"),
    *("li-wei_at_nordwind.io", "li-wei AT nordwind.io", "li-wei-at-nordwind-dot-io", "l i - w e i @ n o r d w i n d . i o"),
]
POSTAL = [
    *(
        "221B Baker Street, London NW1 6XE",
        "12 HIGH STREET, SPRINGFIELD 62704",
        "17 oak lane, reading",
        "742 Evergreen Terrace",
    ),
    *("350 5th Avenue, New York, NY 10118", "Flat 3, 18 Elm Grove, Leeds LS6 2AB", "P.O. Box 1234, Dublin"),
    *(
        "Lindenallee 14\n20095 Hamburg",
        "Unter den Linden 77, 10117 Berlin",
        "Am Markt 5, 04109 Leipzig",
        "Mozartgasse 7/12, 1040 Wien",
    ),
    *("12 rue de la Paix, 75002 Paris", "8 bis, avenue Victor Hugo, 69003 Lyon", "Calle Mayor 5, 28013 Madrid"),
    *("Via Roma 10, 00184 Roma", "Rua Augusta, 1500, S\u00e3o Paulo", "Keizersgracht 174, 1016 DW Amsterdam"),
    *(
        "Kungsgatan 5, 111 22 Stockholm",
        "ul. D\u0142uga 10/16, 00-590 Warszawa",
        "\u0443\u043b. \u0422\u0432\u0435\u0440\u0441\u043a\u0430\u044f, \u0434. 7",
    ),
]
UNNAMED = (
    "Oudegracht 6\n3713 ZD Woerden",
    "1480 Szeged, R\u00e1k\u00f3czi \u00fat 13",
    "124 bis venelle des Roses, 50649 Marseille",
    "Zeil 12 | 60313 Frankfurt am Main",
    "H.No. 157-7/A, Lajpat Nagar II, New Delhi - 345076",
    "Mairead Mkhize\nGansemarkt 101\n78164 Cuxhaven",
    "Praceta da Gloria<br>162<br>cave<br>6243-252 Vila Nova de Gaia",
    "Rose Cottage, Back End, Llanfair Caereinion, SY11 2ZX",
    "7676 state route 76, marion, oh 23588",
    "51 ter rond-point des Champs, 08719 Lyon Cedex 03",
    "Barbaros Blv. No:21/8 D:13 28514 Konak",
    "Austurstr\u00e6ti 9, 607 Reykjav\u00edk",
    "Plot 51, Obafemi Crescent, Gwarinpa, Kaduna",
    "Unit 3/41 Wallaby Track Pde, Geelong West VIC 3218",
    "S\u1ed1 12 ng\u00e1ch 9, ph\u1ed1 H\u00e0ng Tr\u1ed1ng, Ho\u00e0n Ki\u1ebfm, H\u00e0 N\u1ed9i",
    "Tv. 31 # 18A-52, Torre 4, Medell\u00edn",
    "\u05db\u05d9\u05db\u05e8 \u05d3\u05d9\u05d6\u05e0\u05d2\u05d5\u05e3 41, \u05ea\u05dc \u05d0\u05d1\u05d9\u05d1",
    "callej\u00f3n del pozo, 38, 2.\u00ba dcha., 41003 jerez de la frontera",
    "stary rynek 84/12, 61-772 zielona g\u00f3ra",
    "plot 30-5/a, kothrud east, near dena bank, nagpur - 440033",
)
"""Addresses without a word that says street."""
SECRETS = {
    "curl -u admin:cA6CszLsuYib https://x.io": "cA6CszLsuYib",
    "switch 09b7.850a.77c1": "09b7.850a.77c1",
    "machine api.kontor.de login joe password cA6CszLsuYib": "cA6CszLsuYib",
    "mysql -h db -pzuF7g9lcdZMb": "zuF7g9lcdZMb",
    "Authorization: Bearer abcDEF123ghi456JKL789mno": "abcDEF123ghi456JKL789mno",
    "postgres://anna:s3cretpw@db.kontor.de/x": "s3cretpw",
    "hardware 00:1A:2B:3C:4D:5E": "00:1A:2B:3C:4D:5E",
    "client_secret=abcDEF123456ghi": "abcDEF123456ghi",
    "codice RSSMRA85M01H501Z": "RSSMRA85M01H501Z",
    "key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


def windows(document, place, end):
    """Every cut of a document through a part of it, as the masked text of both sides."""
    hidden = privacy.cover(document, privacy.find(document))
    for cut in range(place - 1, end + 2):
        for span in ((0, cut), (cut, len(document))):
            window = document[slice(*span)]
            yield cut, privacy.mask(window, privacy.cover(window, privacy.window_spans(hidden, span)))


@pytest.mark.parametrize("separator", SEPARATED)
def test_no_cut_shows_a_number_whatever_stands_between_its_digits(separator):
    value = separator.join(ACCOUNT[start : start + 4] for start in range(0, len(ACCOUNT), 4))
    document = f"Anna Berg: {value} (private)"
    for cut, shown in windows(document, 11, 11 + len(value)):
        bare = re.sub(r"\[[a-z ]+, [0-9]+ characters\]", "", shown)
        assert sum(map(str.isdigit, bare)) <= 4, (cut, shown)


@pytest.mark.parametrize("value", UNNAMED)
def test_no_address_is_shown_that_has_no_word_for_its_street(value):
    document = f"Dear Li, she lives at {value}; thank you"
    shown = privacy.mask_text(document)
    # Words before it may go with it.
    assert not set(re.findall(r"\w{4,}", value)) & set(re.findall(r"\w{4,}", shown)), shown
    assert shown.startswith("Dear Li, she lives")
    assert shown.endswith("; thank you")


@pytest.mark.parametrize(
    "piece", ["1&#160;", "&amp;amp;#64;", "a@", "@a.", "1</b><b>", "at dot ", "12345 Foo, ", "a b ", "Haus 1\n"]
)
def test_masking_takes_time_in_proportion_to_the_text(piece):
    """No form is read in two ways, which would take forever."""
    text = (piece * 1500)[:1500]
    began = time.process_time()
    privacy.mask_text(text, privacy.find(text), open_ends=True)
    assert time.process_time() - began < 10


@pytest.mark.parametrize("value", SPELLINGS + POSTAL)
def test_no_cut_shows_an_address_in_any_spelling(value):
    document = f"Dear Li, {value}; thank you"
    for cut, shown in windows(document, 9, 9 + len(value)):
        bare = re.sub(r"\[[a-zA-Z ]+, [0-9]+ characters\]", "", shown).replace("Dear Li, ", "").replace("; thank you", "")
        assert not re.search(r"[^\W_]{3}", bare.removeprefix("Dear Li,").removesuffix("thank you")), (cut, shown)


@pytest.mark.parametrize(("text", "secret"), SECRETS.items())
def test_no_cut_shows_a_credential(text, secret):
    for cut, shown in windows(text + "; ok", 0, len(text)):
        assert not any(secret[start : start + 4] in shown for start in range(len(secret) - 3)), (cut, shown)


@pytest.mark.parametrize(
    "text", ["write to ines_lindqvist *at* posteo", "write to ines_lindqvist (at) posteo", "ines_lindqvist@posteo"]
)
def test_no_address_is_shown_whose_domain_the_end_cuts(text):
    for cut in (len(text), len(text) - 2):
        assert "lindqvist" not in privacy.mask_text(text[:cut], open_ends=True)


def test_words_that_look_like_addresses_are_left():
    text = (
        "In the 1990s the road was closed. 5 minutes down the road we met. Im Jahr 2020 waren es 5. In der Regel 12 Stunden. "
        "look_at_position.to_list() and cut_at_offset.py, clause (a) section.two; ring 3 of the kernel. "
        "An estimated 2,400 annual cases, roughly 3,800 employees."
    )
    assert privacy.mask_text(text) == text


@pytest.mark.parametrize("between", [" | ", "/", ".", "\n> ", "', '", "</td> <td>", "\\,", "&#160;", "%20", "_"])
def test_an_account_is_counted_whatever_stands_between_its_groups(between):
    for size in (3, 4, 5):
        written = between.join(ACCOUNT[start : start + size] for start in range(0, len(ACCOUNT), size))
        document = f"customer: {written} (private)"
        [found] = privacy.find(document)
        assert (found.kind, document[found.start : found.end]) == ("bank account", written)


def test_what_is_valid_in_whole_documents_is_counted():
    """Every record once, with its kind, in any form; the shares are in benchmarks/results/personal_data.md."""
    missed = [
        (kind, form, value)
        for kind, form, value, document in records(len(MAKERS) * len(FORMS) * 8, seed=5)
        if [each.kind for each in privacy.find(document)] != [kind]
    ]
    assert len(missed) <= 4, missed


def test_spans_of_windows_are_those_of_the_document_character_by_character():
    rng = random.Random(6)
    for _ in range(300):
        length = rng.randrange(1, 60)
        edges = sorted(rng.sample(range(length + 1), min(length + 1, 2 * rng.randrange(4))))
        findings = [Finding("number", *pair) for pair in zip(edges[::2], edges[1::2], strict=False)]
        flags = [any(each.start <= place < each.end for each in findings) for place in range(length)]
        start, end = sorted(rng.choices(range(length + 1), k=2))
        spans = privacy.window_spans(findings, (start, end))
        assert [any(each.start <= place < each.end for each in spans) for place in range(end - start)] == flags[start:end]


def test_windows_are_located_where_they_were_cut():
    rng = random.Random(7)
    for _ in range(200):
        document = "".join(rng.choice("ab c") for _ in range(80)).strip() + "."
        edges = [0, *sorted(rng.sample(range(1, len(document)), 4)), len(document)]
        pieces = [document[start:end] for start, end in itertools.pairwise(edges)]
        for piece, place in zip(pieces, privacy.locate(document, pieces), strict=True):
            # Blank windows hold nothing to be located.
            assert place is None if not piece.strip() else document[slice(*place)] == piece


@pytest.mark.parametrize("bos", [(), (7,)])
def test_documents_have_the_windows_of_the_sequences(tmp_path, bos):
    """Rows of tokens that begin with the id that the model gets anyway, too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from memtax.corpus.sequences import documents, load_sequences

    class Letters:
        """A token is a letter."""

        is_fast = False

        def batch_decode(self, rows, **_):
            return ["".join(chr(97 + token) for token in row) for row in rows]

        def __len__(self):
            return 26

    rows = [[7, *range(10)], [*range(10, 21)], [7, 1, 2, 3, 4, 5]]
    pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))}), tmp_path / "rows.parquet")
    source, letters = Source.parse(str(tmp_path / "rows.parquet")), Letters()
    for cut in ("first", "all"):
        whole = load_sequences(source, window=5, tokenizer=letters, cut=cut, bos=bos).dataset["text"]
        found = documents(source, window=5, tokenizer=letters, cut=cut, bos=bos)
        assert [window for document in found for window in document.windows] == list(whole)


def test_lists_of_influence_quote_no_number_and_no_address():
    import numpy as np

    from memtax.attribution.influence_functions import Influence
    from memtax.attribution.influence_top import top_table

    kinds, _, _, texts = zip(*records(24, seed=8), strict=True)
    # Cut, as a user's own examples may be.
    texts = [text[: len(text) - 3 * number] for number, text in enumerate(texts)]
    sides = (list(range(24)), texts), (list(range(2)), texts[:2])
    found = {"repsim": Influence("repsim", np.arange(48.0).reshape(24, 2), {})}
    masked = top_table(found, *sides, 24, mask=True).to_pylist()
    for row in masked:
        for text in (row["train_text"], row["test_text"]):
            assert longest_run(text) <= 4, text
            assert kinds[row["train_id"]] != "email" or "@" not in row["train_text"], row
            assert not re.search(r"[\w-]+\.(?:co\.uk|io|ac\.jp)\b", row["train_text"]), row
    assert {row["train_text"] for row in top_table(found, *sides, 24, mask=False).to_pylist()} == set(texts)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", " \n> ", "\n    "])
def test_an_ipv6_address_that_a_line_cuts_is_counted_and_not_shown(line_break):
    address = "2a06:c0ac:6b84:c9fa:3b4c:8b3e:8186:a795"
    for cut in range(6, len(address) - 1):
        value = address[:cut] + line_break + address[cut:]
        document = f"sent from {value}, said the\nlog of it"
        assert privacy.find(document) == [Finding("IP address", 10, 10 + len(value))]
        assert privacy.mask_text(document) == f"sent from [IP address, {len(value)} characters], said the\nlog of it"
    # Two whole addresses, times of day and names of C++ are none.
    for text in ("at 2a06:c0ac::1\nbad luck", "from 10:20:30\n11:40:50 on", "use std::add\nface::bed once", "aaaa:bbbb\ncc"):
        spans = [text[each.start : each.end] for each in privacy.cover(text) if each.kind == "IP address"]
        assert not any("\n" in span for span in spans)
