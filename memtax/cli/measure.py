"""What is measured on its own: count, score, filter."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from memtax.cli.base import app, listed
from memtax.cli.outcome import Outcome


@app.command()
def count(
    corpus: Annotated[
        list[str],
        typer.Argument(help="Corpus: .bin, .npy, Parquet, Arrow, JSONL, folders, globs, Hub names; with Spark, s3a:// too."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")],
    sequences: Annotated[
        list[str] | None, typer.Option(help="Where windows are cut from; without it, the corpus itself. May be repeated.")
    ] = None,
    window: Annotated[
        list[str] | None, typer.Option(help="Tokens start:stop of sequences; default: 32:64. May be repeated.")
    ] = None,
    no_windows: Annotated[bool, typer.Option("--no-windows", help="Count tokens only.")] = False,
    column: Annotated[str | None, typer.Option(help="Column of tokens or text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="For text: a tokenizer, by path or Hub name.")] = None,
    vocabulary_size: Annotated[int | None, typer.Option(help="Ids at or above it are refused.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="For headerless files: tokens a sequence (Pythia: 2049).")] = None,
    dtype: Annotated[str, typer.Option(help="For headerless files: uint16, uint32 or int32.")] = "uint16",
    document_separator: Annotated[int | None, typer.Option(help="Token that ends documents; windows must not hold it.")] = None,
    substitutions: Annotated[int | None, typer.Option(help="Also count places with up to so many tokens replaced.")] = None,
    memorized: Annotated[str | None, typer.Option(help="Dataset of memorized ids; splits the token frequencies.")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Read datasets on the fly, without a copy on disk.")] = False,
    threads: Annotated[int | None, typer.Option(help="Counting threads; all cores if not given.")] = None,
    shard_tokens: Annotated[int, typer.Option(help="Tokens a shard, the unit of work and of resuming.")] = 2**23,
    engine: Annotated[str, typer.Option(help="local or spark.")] = "local",
    master: Annotated[str | None, typer.Option(help="Spark master, such as spark://host:7077 or local[4].")] = None,
) -> Outcome:
    """Count every token and every asked-for window of a corpus, exactly, in one pass.

    Writes `num_duplicates.parquet` and `token_frequencies.parquet`. A killed run goes on where it was.

    Example: `memtax count runs/demo/dataset:features --window 32:64 --output counts`
    """
    from memtax.corpus.job import CountJob, describe
    from memtax.corpus.opening import Reading
    from memtax.corpus.spans import Span
    from memtax.lm.loading import load_tokenizer

    job = CountJob(
        corpus=tuple(corpus),
        sequences=() if no_windows else tuple(sequences) if sequences else None,
        spans=tuple(Span.parse(each) for each in listed(window) or ["32:64"]),
        reading=Reading(
            column, streaming, sequence_length, dtype, load_tokenizer(tokenizer, None) if tokenizer else None, vocabulary_size
        ),
        separator=document_separator,
        substitutions=substitutions,
        memorized=memorized,
        threads=threads,
        shard_tokens=shard_tokens,
        engine=engine,
        master=master,
    )
    totals = job.run(output)
    return Outcome({"output": output, **totals}, [f"{describe(totals, job.spans)}: {output}"])


@app.command(name="filter")
def filter_(
    names: Annotated[
        list[str],
        typer.Argument(help="Filters of the catalogue, then the dataset as path[:config[:split]].", metavar="NAME... DATASET"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the finished shards and features.parquet.")],
    counts: Annotated[str | None, typer.Option(help="For duplicates: a folder of `memtax count`, or org/name::split.")] = None,
    frequencies: Annotated[str | None, typer.Option(help="For token_frequencies; --counts if not given.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="For scores and other filters with a model.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Another parameter, as name=value. May be repeated.")] = None,
    engine: Annotated[str, typer.Option(help="local or spark.")] = "local",
    master: Annotated[str | None, typer.Option(help="Spark master, such as spark://host:7077 or local[4].")] = None,
) -> Outcome:
    """Add the columns of filters to a dataset.

    Example: `memtax filter duplicates templates runs/demo/dataset:features --counts counts --output filtered`
    """
    from memtax.corpus.sources import Source
    from memtax.errors import MemtaxError
    from memtax.pipeline.filtering import apply_filters
    from memtax.records import parse_yaml

    if len(names) < 2:
        raise MemtaxError("name at least one filter and then the dataset: memtax filter NAME... DATASET --output DIR")
    pairs = [each.partition("=") for each in set_ or ()]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise MemtaxError(f"--set {name} is no name=value")
    given = {"counts": counts, "frequencies": frequencies or counts, "model": model}
    parameters = {name: value for name, value in given.items() if value is not None}
    if frequencies is None and "token_frequencies" not in names:
        parameters.pop("frequencies", None)
    if "duplicates" not in names and frequencies is None:
        parameters.pop("counts", None)
    parameters |= {name: parse_yaml(value, f"the value of --set {name}") for name, _, value in pairs}
    result = apply_filters(names[:-1], Source.parse(names[-1]), output, parameters, engine, master)
    return Outcome({"output": output, **dataclasses.asdict(result)}, result.lines())
