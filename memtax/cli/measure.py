"""What is measured on its own: count, score, filter."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from memtax.cli.base import BOS, DTYPE, REVISED, app, listed, numbers
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


@app.command()
def score(
    sequences: Annotated[str, typer.Argument(help="Rows of tokens or text: path[:config[:split]].")],
    model: Annotated[str, typer.Option("--model", "-m", help=REVISED)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where parts, table, summary and record go.")],
    prompt: Annotated[list[str], typer.Option(help="Prompt tokens. May be repeated.")] = ["32"],  # noqa: B006
    continuation: Annotated[list[str], typer.Option(help="Continuation tokens. May be repeated.")] = ["32"],  # noqa: B006
    reference_model: Annotated[str | None, typer.Option(help="A model that was not trained on the sequences.")] = None,
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help="Only which are memorized, at a fraction of the time.")
    ] = False,
    generate: Annotated[
        bool, typer.Option("--generate", help="Also memorization_score, by free-running greedy decoding.")
    ] = False,
    reference_eos: Annotated[
        bool, typer.Option("--reference-eos", help="End-of-sequence is never chosen, as in Pythia's evaluation.")
    ] = False,
    temperature: Annotated[float, typer.Option(help="Of the sampling scheme for (n, p)-extraction.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Of the sampling scheme.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the sampling scheme.")] = None,
    probability: Annotated[float | None, typer.Option(help="Also the samples needed to extract with this probability.")] = None,
    token_logprobs: Annotated[bool, typer.Option("--token-logprobs", help="Also the log-probability of every token.")] = False,
    moments: Annotated[
        bool, typer.Option("--moments", help="Also mean and variance of log p at every token (Min-K%++).")
    ] = False,
    ranks: Annotated[bool, typer.Option("--ranks", help="Also the rank of every token.")] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also entropy and Gini coefficient of each attention head.")
    ] = False,
    stride: Annotated[int | None, typer.Option(help="Rows are long texts: score a window every so many tokens.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a row that are read; default: what the windows cover.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of tokens or text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name, for text; default: the model's.")] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE)] = "float32",
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
    batch_size: Annotated[str, typer.Option(help="Sequences a forward pass, or auto: what fits.")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="auto spreads a large model over all devices.")] = None,
    quantization: Annotated[str | None, typer.Option(help="8bit or 4bit, where bitsandbytes is installed.")] = None,
) -> Outcome:
    """Score sequences by one forward pass: perplexities, extraction, and more where asked.

    Every pair of a prompt and a continuation length is measured, from the same pass. With `--stride` a long text, such as a
    book, is read window by window, and a report with a heat map is written.

    Example: `memtax score runs/demo/dataset:features --model runs/demo/models/small-gpt-neox --prompt 16,32 --output scores`

    Several processes: `accelerate launch -m memtax score ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax score ...`
    on CPUs.
    """
    from memtax.corpus.sources import Source
    from memtax.errors import MemtaxError
    from memtax.filters.scores import LanguageModelFilter
    from memtax.lm.loading import split_revision
    from memtax.pipeline.scoring import score_sequences
    from memtax.pipeline.sliding import score_windows

    if batch_size != "auto" and not batch_size.isdecimal():
        raise MemtaxError(f"--batch-size {batch_size!r} is neither a number nor auto")
    lengths = numbers(continuation, "--continuation", int), numbers(prompt, "--prompt", int)
    windows = [(before, after) for after in lengths[0] for before in lengths[1]]
    name, revision = split_revision(model)
    common: dict[str, Any] = {
        "prompt": windows[0][0],
        "continuation": windows[0][1],
        "reference_eos": reference_eos,
        "dtype": dtype,
        "bos": bos,
        "batch_size": None if batch_size == "auto" else int(batch_size),
        "device_map": device_map,
        "quantization": quantization,
    }
    scores = LanguageModelFilter(
        name,
        revision,
        windows=tuple(windows[1:]),
        exact_only=exact_only,
        generated=generate,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        probability=probability,
        token_logprobs=token_logprobs,
        moments=moments,
        ranks=ranks,
        attention=attention,
        **common,
    )
    reference = LanguageModelFilter(*split_revision(reference_model), exact_only=True, **common) if reference_model else None
    source = Source.parse(sequences, column=column)
    if stride is None:
        result = score_sequences(source, scores, output, reference=reference, tokenizer=tokenizer, length=length)
    elif reference or length or exact_only or len(windows) > 1:
        raise MemtaxError("--stride takes one prompt and one continuation length, and no reference, exact-only or length")
    else:
        result = score_windows(source, scores, output, stride=stride, tokenizer=tokenizer)
    return Outcome({"output": output, "table": result.table, **result.summary}, result.lines())


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
