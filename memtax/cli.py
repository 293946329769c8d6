"""The `memtax` command: one short function per verb, which calls one library function and prints where the result is."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="memtax",
    help="Measure, explain and predict what a causal language model memorized from its training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_debug = False

Output = Annotated[Path, typer.Option("--output", "-o", help="Run directory.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Options of every verb."""
    from memtax.progress import set_quiet

    global _debug
    _debug = debug
    set_quiet(quiet)


@app.command()
def demo(output: Output = Path("memtax-demo")) -> None:
    """Train a small model on the Python standard library and run everything on it: offline, about four minutes.

    Example: `memtax demo --output runs/demo`
    """
    from memtax.demo import demo as run_demo
    from memtax.pipeline.summary import print_summary

    print_summary(run_demo(output))


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file, or the run.yaml of a finished run.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run directory, instead of the file's.")] = None,
) -> None:
    """Run all stages on your own model and dataset.

    The file needs three keys: `model`, `corpus` and `output`; the README lists the others.

    Example: `memtax run config.yaml --output runs/mine`
    """
    from memtax.pipeline import RunConfig
    from memtax.pipeline import run as run_pipeline
    from memtax.pipeline.summary import print_summary

    print_summary(run_pipeline(RunConfig.load(config, output=None if output is None else str(output))))


@app.command()
def count(
    corpus: Annotated[list[str], typer.Argument(help="Corpus: .bin, .npy, Parquet, Arrow, JSONL, folders, globs, Hub names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")],
    sequences: Annotated[
        list[str] | None, typer.Option(help="Where windows are cut from; without it, the corpus itself. May be repeated.")
    ] = None,
    window: Annotated[list[str] | None, typer.Option(help="Tokens start:stop of sequences [32:64]. May be repeated.")] = None,
    no_windows: Annotated[bool, typer.Option("--no-windows", help="Count tokens only.")] = False,
    column: Annotated[str | None, typer.Option(help="Column of tokens or text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="For text: a tokenizer, by path or Hub name.")] = None,
    vocabulary_size: Annotated[int | None, typer.Option(help="Ids at or above it are refused.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="For headerless files: tokens a sequence (Pythia: 2049).")] = None,
    dtype: Annotated[str, typer.Option(help="For headerless files: uint16, uint32 or int32.")] = "uint16",
    document_separator: Annotated[int | None, typer.Option(help="Token that ends documents; windows must not hold it.")] = None,
    substitutions: Annotated[int | None, typer.Option(help="Also count places with up to so many tokens replaced.")] = None,
    memorized: Annotated[str | None, typer.Option(help="Dataset of memorized ids; splits the token frequencies.")] = None,
    streaming: Annotated[bool, typer.Option(help="Read datasets on the fly, without a copy on disk.")] = False,
    threads: Annotated[int | None, typer.Option(help="Counting threads; all cores if not given.")] = None,
    shard_tokens: Annotated[int, typer.Option(help="Tokens a shard, the unit of work and of resuming.")] = 2**23,
    engine: Annotated[str, typer.Option(help="local or spark.")] = "local",
    master: Annotated[str | None, typer.Option(help="Spark master, such as spark://host:7077 or local[4].")] = None,
) -> None:
    """Count every token and every asked-for window of a corpus, exactly, in one pass.

    Writes `num_duplicates.parquet` and `token_frequencies.parquet`. A killed run goes on where it was.

    Example: `memtax count document.bin --sequence-length 2049 --sequences org/memorized --window 32:64 --output counts`
    """
    from memtax.corpus.job import CountJob, describe
    from memtax.corpus.opening import Reading
    from memtax.corpus.spans import Span
    from memtax.lm.loading import load_tokenizer

    job = CountJob(
        corpus=tuple(corpus),
        sequences=() if no_windows else tuple(sequences) if sequences else None,
        spans=tuple(Span.parse(each) for each in window or ["32:64"]),
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
    typer.echo(f"{describe(job.run(output), job.spans)}: {output}")


@app.command(name="filter")
def filter_(
    names: Annotated[list[str], typer.Argument(help="Filters of the catalogue, then the dataset.", metavar="NAME... DATASET")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the finished shards and features.parquet.")],
    counts: Annotated[str | None, typer.Option(help="For duplicates: a folder of `memtax count`, or org/name::split.")] = None,
    frequencies: Annotated[str | None, typer.Option(help="For token_frequencies; --counts if not given.")] = None,
    model: Annotated[str | None, typer.Option(help="For scores and other filters with a model.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Another parameter, as name=value. May be repeated.")] = None,
    engine: Annotated[str, typer.Option(help="local or spark.")] = "local",
    master: Annotated[str | None, typer.Option(help="Spark master, such as spark://host:7077 or local[4].")] = None,
) -> None:
    """Add the columns of filters to a dataset.

    Example: `memtax filter duplicates templates org/sequences --counts counts --output filtered`
    """
    import yaml

    from memtax.corpus.sources import Source
    from memtax.errors import MemtaxError
    from memtax.pipeline.filtering import apply_filters

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
    parameters |= {name: yaml.safe_load(value) for name, _, value in pairs}
    typer.echo(apply_filters(names[:-1], Source.parse(names[-1]), output, parameters, engine, master))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """Write the report of a run again.

    Example: `memtax report runs/demo`
    """
    from memtax.report import write

    typer.echo(write(run))


@app.command()
def env() -> None:
    """Print what a bug report needs: versions, platform, processors, memory, accelerators.

    Example: `memtax env`
    """
    import yaml

    from memtax.provenance import environment

    typer.echo(yaml.safe_dump(environment(), sort_keys=False).rstrip())


def main() -> None:
    """Entry point: an error the user can mend is one line and exit status 2."""
    from memtax.errors import MemtaxError

    try:
        app()
    except MemtaxError as error:
        _fail(" ".join(str(error).split()))
    except OSError as error:
        # Disk full, read-only output, no permission: the file system's own words say it best.
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}")
    except KeyboardInterrupt:
        typer.echo("memtax: stopped; run the same command again to go on", err=True)
        raise SystemExit(130) from None


def _fail(message: str) -> None:
    if _debug:
        raise
    printable = "".join(character if character.isprintable() else "?" for character in message)
    typer.echo(f"memtax: {printable}", err=True)
    sys.exit(2)
