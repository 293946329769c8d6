"""Two runs over the same sequences: what one model memorized and the other did not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.files import write_json, write_parquet
from memtax.report import words
from memtax.report.plain import Table, write_page
from memtax.schema import CATEGORIES

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Of `compare.json`: raised when a key changes its meaning or goes."""

SHOWN = 50
"""Sequences of each kind that the page and the JSON show; the Parquet file has all."""

Row = dict[str, Any]


def compare(before: Path | str, after: Path | str, output: Path | str) -> dict[str, Any]:
    """Compare two runs sequence by sequence, and write `compare.json`, `compare.parquet` and `index.html`.

    Args:
        before: a run directory, or a Parquet file with `sequence_id`, `is_memorized` and `tokens` or `text`.
        after: another, of the same sequences; intervals and tests are of after minus before.
        output: the folder of the results.

    Returns:
        The contents of `compare.json`.

    Raises:
        MemtaxError: a run cannot be read, they share no sequence, or a shared id stands for different sequences.
    """
    rows, counts = _join(_read(Path(before)), _read(Path(after)), str(before), str(after))
    known = [row for row in rows if row["memorized_before"] is not None and row["memorized_after"] is not None]
    if not known:
        raise MemtaxError(f"no sequence that {before} and {after} share has a verdict in both; score them first")
    result: dict[str, Any] = {
        "schema": "memtax.compare",
        "schema_version": SCHEMA_VERSION,
        "before": str(before),
        "after": str(after),
        "sequences": {**counts, "compared": len(known), "without_verdict": len(rows) - len(known)},
        "rates": _rates(known),
        "transitions": _transitions(known),
        "newly_memorized": [_shown(row) for row in known if row["change"] == "gained"][:SHOWN],
        "forgotten": [_shown(row) for row in known if row["change"] == "lost"][:SHOWN],
    }
    folder = Path(output)
    write_parquet(folder / "compare.parquet", _table(rows))
    write_json(folder / "compare.json", result)
    write_page(folder / "index.html", "What changed between two runs", _about(result), _sections(result))
    return result


def _read(path: Path) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / "dataset" / "features" / "train.parquet" if path.is_dir() else path
    if not file.is_file():
        raise MemtaxError(f"{path} is no finished run: {file} is missing; run it, or give a Parquet file of sequences")
    try:
        present = pq.read_schema(file).names
        missing = [name for name in ("sequence_id", "is_memorized") if name not in present]
        if missing or not {"tokens", "text"} & set(present):
            raise MemtaxError(f"{file} has no {' and '.join(missing or ['tokens or text'])}; compare needs them")
        names = [name for name in ("sequence_id", "is_memorized", "taxonomy", "tokens", "text") if name in present]
        table = pq.read_table(file, columns=names)
    except (OSError, pa.ArrowInvalid) as error:
        raise MemtaxError(
            f"{file} cannot be read ({str(error).splitlines()[0]}); run the stage that writes it again"
        ) from error
    ids = table.column("sequence_id").to_pylist()
    if len(set(ids)) != len(ids):
        twice = next(each for each, count in Counter(ids).items() if count > 1)
        raise MemtaxError(f"{file}: sequence_id {twice} occurs more than once; ids must be unique")
    return table


def _join(first: "pa.Table", second: "pa.Table", before: str, after: str) -> tuple[list[Row], dict[str, int]]:
    """One row a shared sequence, in the order of the first run."""
    key = next((name for name in ("tokens", "text") if {name} <= set(first.column_names) & set(second.column_names)), None)
    if key is None:
        raise MemtaxError(f"{before} and {after} share neither tokens nor text, so that their sequences cannot be matched")
    theirs = {row["sequence_id"]: row for row in second.to_pylist()}
    rows, different = [], []
    for old in first.to_pylist():
        new = theirs.get(old["sequence_id"])
        if new is None:
            continue
        if old[key] != new[key]:
            different.append(old["sequence_id"])
            continue
        rows.append(_row(old, new))
    if different:
        raise MemtaxError(
            f"{len(different):,} shared ids of {before} and {after} stand for different {key} (first: sequence_id "
            f"{different[0]}); compare runs over the same sequences and tokenizer"
        )
    if not rows:
        raise MemtaxError(f"{before} and {after} share no sequence_id; compare runs over the same sequences")
    return rows, {"before": len(first), "after": len(second), "shared": len(rows)}


def _row(old: Mapping[str, Any], new: Mapping[str, Any]) -> Row:
    states = (old["is_memorized"], new["is_memorized"])
    change = {(False, True): "gained", (True, False): "lost", (True, True): "kept", (False, False): "never"}.get(states)
    return {
        "sequence_id": old["sequence_id"],
        "memorized_before": states[0],
        "memorized_after": states[1],
        "category_before": _category(old.get("taxonomy")),
        "category_after": _category(new.get("taxonomy")),
        "change": change,
        "text": old.get("text") or new.get("text"),
    }


def _category(code: int | None) -> str | None:
    return None if code is None else CATEGORIES[code]


def _rates(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Of all, and by the category before: rates with exact intervals, paired difference, McNemar's test.

    A category's rows are chosen by the run before, so that both rates are of the same rows.
    """
    groups = {"all": list(rows)}
    groups |= {name: [row for row in rows if row["category_before"] == name] for name in CATEGORIES}
    return {name: _compare_group(group) for name, group in groups.items()}


def _compare_group(rows: Sequence[Row]) -> dict[str, Any]:
    changes = Counter(row["change"] for row in rows)
    gained, lost = changes["gained"], changes["lost"]
    counts = {"sequences": len(rows), "gained": gained, "lost": lost, "kept": changes["kept"], "never": changes["never"]}
    if not rows:
        return {**counts, "before": None, "after": None, "difference": None, "mcnemar_p_value": None}
    intervals = {
        "before": statistics.clopper_pearson(changes["kept"] + lost, len(rows)),
        "after": statistics.clopper_pearson(changes["kept"] + gained, len(rows)),
        "difference": statistics.paired_difference(gained, lost, len(rows)),
    }
    estimates = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in intervals.items()}
    return {**counts, **estimates, "mcnemar_p_value": statistics.mcnemar_exact(gained, lost)}


def _state(row: Row, when: str) -> str:
    if not row[f"memorized_{when}"]:
        return "not memorized"
    return row[f"category_{when}"] or "memorized, no category"


def _transitions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How many sequences went from each state (not memorized, or the category) to each; no row for none."""
    found = Counter((_state(row, "before"), _state(row, "after")) for row in rows)
    return [{"before": old, "after": new, "sequences": count} for (old, new), count in sorted(found.items())]


def _shown(row: Row) -> Row:
    return {name: row[name] for name in ("sequence_id", "category_before", "category_after", "text")}


def _table(rows: Sequence[Row]) -> "pa.Table":
    import pyarrow as pa

    kinds = {"sequence_id": pa.int64(), "memorized_before": pa.bool_(), "memorized_after": pa.bool_()}
    names = ("sequence_id", "memorized_before", "memorized_after", "category_before", "category_after", "change", "text")
    return pa.Table.from_pylist(list(rows), pa.schema([(name, kinds.get(name, pa.string())) for name in names]))


def conclusion(result: Mapping[str, Any]) -> str:
    """The comparison in a sentence."""
    found = result["rates"]["all"]
    if found["mcnemar_p_value"] >= 0.05:
        verdict = "No difference shown"
    else:
        verdict = "Less is memorized after" if found["difference"]["value"] < 0 else "More is memorized after"
    return f"{verdict}: {words.percent(found['before']['value'])} before, {words.percent(found['after']['value'])} after"


def _points(estimate: Mapping[str, float]) -> str:
    """A difference of rates in percentage points with its interval."""
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _share(estimate: Mapping[str, float]) -> str:
    return f"{words.percent(estimate['value'])} ({words.percent(estimate['low'])} to {words.percent(estimate['high'])})"


def _about(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Before", result["before"]),
        ("After", result["after"]),
        ("Compared", f"{result['sequences']['compared']:,} sequences"),
        ("Left out", f"{result['sequences']['without_verdict']:,} shared sequences without a verdict in both"),
    ]


def _rate_row(name: str, one: Mapping[str, Any]) -> list[str]:
    shares = (_share(one["before"]), _share(one["after"]), _points(one["difference"]))
    p_value = f"{one['mcnemar_p_value']:.3g}"
    return [words.label(name), f"{one['sequences']:,}", *shares, f"{one['gained']:,}", f"{one['lost']:,}", p_value]


def _sections(result: Mapping[str, Any]) -> list[Table]:
    rates = [_rate_row(name, one) for name, one in result["rates"].items() if one["sequences"]]
    head = ("Category before", "Sequences", "Before", "After", "Difference in points", "Gained", "Lost", "McNemar p")
    moves = [[each["before"], each["after"], f"{each['sequences']:,}"] for each in result["transitions"]]
    found = [
        Table(
            conclusion(result),
            "Rates carry exact (Clopper-Pearson) intervals, differences Tango's score interval for paired rates, both at 95%; "
            "p-values are of McNemar's exact test, one a row and not corrected for their number.",
            "Share memorized, before and after",
            head,
            rates,
        ),
        Table(
            "Where sequences went",
            "A memorized sequence stands under its category in that run.",
            "Transitions between states",
            ("Before", "After", "Sequences"),
            moves,
        ),
    ]
    for name, total, title in (("newly_memorized", "gained", "newly memorized"), ("forgotten", "lost", "forgotten")):
        rows = [[str(row["sequence_id"]), row["category_after"] or "unknown", row["text"] or ""] for row in result[name]]
        count = result["rates"]["all"][total]
        text = f"The first {len(rows):,} are below; compare.parquet has all." if rows else "There is none."
        caption = f"Sequences {title}"
        found.append(Table(f"{count:,} {title}", text, caption, ("sequence_id", "Category after", "Text"), rows))
    return found
