"""Personal data in generated texts: recall by kind and form, precision beside numbers that only look like it, speed.

    python benchmarks/personal_data.py [--records 2400] [--seed 0]

The numbers are valid by checksum and numbering plan, of several countries; the texts beside them hold as many numbers and
addresses of other kinds: dates, prices, versions, hashes, publications, order numbers, accounts and cards with a wrong digit.
"""

import argparse
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from memtax import privacy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from helpers.personal_data import FORMS, MAKERS, card, grouped, iban, records


def digits(rng: random.Random, count: int) -> str:
    """So many random digits."""
    return "".join(rng.choice("0123456789") for _ in range(count))


def wrong_digit(rng: random.Random, number: str) -> str:
    """The number with its last digit changed, which every checksum notices."""
    return number[:-1] + str((int(number[-1]) + rng.randrange(1, 10)) % 10)


OTHERS: dict[str, Callable[[random.Random], str]] = {
    "date and time": lambda rng: (
        f"{rng.randrange(1990, 2030)}-0{rng.randrange(1, 10)}-{rng.randrange(10, 29)} 12:30:{digits(rng, 2)}"
    ),
    "price": lambda rng: f"EUR {rng.randrange(10**6):,}.{digits(rng, 2)}",
    "decimal number": lambda rng: f"{rng.random() * 10 ** rng.randrange(-3, 6)}",
    "version": lambda rng: f"version {rng.randrange(20)}.{rng.randrange(30)}.{rng.randrange(300)}.{rng.randrange(90)}",
    "hash": lambda rng: f"{rng.getrandbits(160):040x}",
    "UUID": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "ISBN": lambda rng: f"ISBN 978-{digits(rng, 1)}-{digits(rng, 4)}-{digits(rng, 4)}-{digits(rng, 1)}",
    "order number": lambda rng: f"order no. {digits(rng, rng.randrange(6, 14))}",
    "account, wrong digit": lambda rng: grouped(wrong_digit(rng, iban(rng)), " "),
    "card, wrong digit": lambda rng: grouped(wrong_digit(rng, card(rng)), " "),
    "private network": lambda rng: f"192.168.{rng.randrange(256)}.{rng.randrange(256)}",
    "at sign": lambda rng: rng.choice(("@property", "pkg@^4.2.0", "a@b", "user@localhost", "git@v1.2", "3 @ 4.50")),
}


def share(part: int, whole: int) -> str:
    """A share in percent with its counts."""
    return f"{part / whole:.1%} ({part:,} of {whole:,})" if whole else "-"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    right: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    wrong: Counter[str] = Counter()
    found_of: Counter[str] = Counter()
    started, characters = time.perf_counter(), 0
    for kind, form, value, document in records(arguments.records, arguments.seed):
        place = document.index(value)
        findings = privacy.find(document)
        characters += len(document)
        # Right: of the kind, and of the value with nothing left out but at most a sign before it.
        end = place + len(value.rstrip())
        good = [each for each in findings if each.kind == kind and each.start <= place + 1 and each.end >= end]
        total[kind, form] += 1
        right[kind, form] += bool(good)
        found_of[kind] += len(good)
        wrong.update(each.kind for each in findings if each not in good)
    by_other: Counter[str] = Counter()
    each_other = max(1, arguments.records // len(OTHERS))
    for name, make in OTHERS.items():
        for _ in range(each_other):
            document = f"The entry says {make(rng)} and nothing else."
            findings = privacy.find(document)
            characters += len(document)
            by_other[name] += bool(findings)
            wrong.update(each.kind for each in findings)
    seconds = time.perf_counter() - started

    print(f"{arguments.records:,} records, {each_other * len(OTHERS):,} other texts, seed {arguments.seed}\n")
    print("Recall by form\n")
    print("| kind | " + " | ".join(FORMS) + " | all |\n|---|" + "---|" * (len(FORMS) + 1))
    for kind in MAKERS:
        cells = [f"{right[kind, form] / total[kind, form]:.1%}" for form in FORMS]
        whole = sum(right[kind, form] for form in FORMS), sum(total[kind, form] for form in FORMS)
        print(f"| {kind} | " + " | ".join(cells) + f" | {share(*whole)} |")
    print("\nPrecision: findings that are right, of all findings in both kinds of text\n")
    print("| kind | precision |\n|---|---|")
    for kind in sorted({*MAKERS, *wrong}):
        print(f"| {kind} | {share(found_of[kind], found_of[kind] + wrong[kind])} |")
    print("\nOther texts in which something was found\n")
    print("| text | share |\n|---|---|")
    for name in OTHERS:
        print(f"| {name} | {share(by_other[name], each_other)} |")
    recall = share(sum(right.values()), sum(total.values()))
    precision = share(sum(found_of.values()), sum(found_of.values()) + sum(wrong.values()))
    print(f"\nAll kinds: recall {recall}, precision {precision}.")
    print(f"{characters / seconds / 1e3:,.0f} thousand characters per second.")


if __name__ == "__main__":
    main()
