"""The `memtax` command: one short function per verb, which calls one library function and prints where the result is."""

import sys
from pathlib import Path
from typing import Annotated, Any

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
    """Train a small model on the Python standard library and run everything on it: offline, in about two minutes.

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
def fit(
    data: Annotated[str, typer.Argument(help="Dataset of sequences with their factors: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the predictor.")],
    factors: Annotated[str | None, typer.Option(help="Columns, separated by commas; default: the published ones.")] = None,
    before_training: Annotated[
        bool, typer.Option("--before-training", help="Use only factors that are known before a model exists.")
    ] = False,
    target: Annotated[str, typer.Option(help="Boolean column to predict.")] = "is_memorized",
    category: Annotated[str, typer.Option(help="Column of categories.")] = "taxonomy",
    memorized_only: Annotated[str | None, typer.Option(help="More memorized sequences, for training alone.")] = None,
    calibration: Annotated[str, typer.Option(help="prior, recalibration or none.")] = "prior",
    seed: Annotated[int, typer.Option(help="Seed of split and bootstrap.")] = 1024,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of each interval.")] = 1000,
    explain: Annotated[bool, typer.Option(help="Also test coefficients and compute correlations.")] = True,
    probe: Annotated[str | None, typer.Option(help="Language model whose layers are probed; the data need tokens.")] = None,
    push: Annotated[str | None, typer.Option(help="Model repository on the Hub to push to.")] = None,
) -> None:
    """Fit the predictor: one model for all sequences and one a category, with tests, intervals and figures.

    Example: `memtax fit runs/demo/dataset:features --output runs/demo/predictor`
    """
    from memtax.pipeline.fitting import fit as run_fit
    from memtax.pipeline.fitting import probe_layers

    predictor = run_fit(
        data,
        output,
        factors=_names(factors),
        before_training=before_training,
        target=target,
        category=category,
        memorized_only=memorized_only,
        calibration=calibration,
        seed=seed,
        resamples=resamples,
        explain=explain,
    )
    if probe is not None:
        probe_layers(data, probe, predictor, output)
    typer.echo(output)
    if push is not None:
        typer.echo(predictor.push_to_hub(push))


@app.command()
def search(
    data: Annotated[str, typer.Argument(help="Dataset of sequences with their factors: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; finished parts are kept.")],
    factors: Annotated[str | None, typer.Option(help="Columns of the models, separated by commas.")] = None,
    split_on: Annotated[str | None, typer.Option(help="Columns that rules ask about, separated by commas.")] = None,
    quantiles: Annotated[str, typer.Option(help="Of the memorized training rows, separated by commas.")] = "0.25,0.5,0.75",
    criterion: Annotated[str, typer.Option(help="log_loss, brier, roc_auc, pr_auc or f1, on validation rows.")] = "log_loss",
    target: Annotated[str, typer.Option(help="Boolean column to predict.")] = "is_memorized",
    seed: Annotated[int, typer.Option(help="Seed of split and bootstrap.")] = 1024,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of each interval.")] = 1000,
    start: Annotated[int, typer.Option(help="First partition of this slice.")] = 0,
    stop: Annotated[int | None, typer.Option(help="End of this slice (not in it).")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help="Folder with another slice; may be given many times.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Also grow a partition rule by rule.")] = False,
) -> None:
    """Search all two-rule partitions: chosen on validation rows, judged once on test rows.

    Example: `memtax search runs/demo/dataset:features --output runs/demo/search --greedy`
    """
    from memtax.pipeline.fitting import search as run_search

    run_search(
        data,
        output,
        start=start,
        stop=stop,
        merged=merge or (),
        greedy=greedy,
        factors=_names(factors),
        split_on=_names(split_on),
        quantiles=_numbers(quantiles),
        criterion=criterion,
        target=target,
        seed=seed,
        resamples=resamples,
    )
    typer.echo(output)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder of a predictor, or its name on the Hub.")],
    data: Annotated[str, typer.Argument(help="Dataset of any size: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the scored dataset.")],
    baseline: Annotated[bool, typer.Option("--baseline", help="Use the model for all, not the categories' models.")] = False,
) -> None:
    """Add each sequence's probability of being memorized, streaming.

    Example: `memtax predict runs/demo/predictor corpus.parquet --output scored`
    """
    from memtax.taxonomy.predict import predict_dataset
    from memtax.taxonomy.predictor import Predictor

    typer.echo(predict_dataset(Predictor.from_pretrained(model), data, output, "baseline" if baseline else "taxonomic"))


@app.command()
def score(
    sequences: Annotated[str, typer.Argument(help="Rows of tokens or text: PATH or NAME[:CONFIG[:SPLIT]].")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the model, NAME@REVISION for a revision.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where parts, table, summary and record go.")],
    prompt: Annotated[list[int], typer.Option(help="Prompt tokens; give it again for further lengths.")] = [32],  # noqa: B006
    continuation: Annotated[list[int], typer.Option(help="Continuation tokens; may be given again.")] = [32],  # noqa: B006
    reference_model: Annotated[str | None, typer.Option(help="A model that was not trained on the sequences.")] = None,
    exact_only: Annotated[bool, typer.Option(help="Only which are memorized, at a fraction of the time.")] = False,
    generate: Annotated[bool, typer.Option(help="Also memorization_score, by free-running greedy decoding.")] = False,
    reference_eos: Annotated[bool, typer.Option(help="End-of-sequence is never chosen, as in Pythia's evaluation.")] = False,
    temperature: Annotated[float, typer.Option(help="Of the sampling scheme for (n, p)-extraction.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Of the sampling scheme.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the sampling scheme.")] = None,
    probability: Annotated[float | None, typer.Option(help="Also the samples needed to extract with this probability.")] = None,
    token_logprobs: Annotated[bool, typer.Option(help="Also the log-probability of every token.")] = False,
    moments: Annotated[bool, typer.Option(help="Also mean and variance of log p at every token (Min-K%++).")] = False,
    ranks: Annotated[bool, typer.Option(help="Also the rank of every token.")] = False,
    attention: Annotated[bool, typer.Option(help="Also entropy and Gini coefficient of each attention head.")] = False,
    stride: Annotated[int | None, typer.Option(help="Rows are long texts: score a window every so many tokens.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a row that are read; default: what the windows cover.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of tokens or text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name, for text; default: the model's.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    batch_size: Annotated[str, typer.Option(help="Sequences a forward pass, or auto: what fits.")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="auto spreads a large model over all devices.")] = None,
    quantization: Annotated[str | None, typer.Option(help="8bit or 4bit, where bitsandbytes is installed.")] = None,
) -> None:
    """Score sequences by one forward pass: perplexities, extraction, and more where asked.

    Every pair of a prompt and a continuation length is measured, from the same pass. With `--stride` a long text, such as a
    book, is read window by window, and a report with a heat map is written.

    Example: `memtax score runs/demo/corpus --model runs/demo/models/lm --prompt 16 --prompt 32 --output scores`

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
    windows = [(before, after) for after in continuation for before in prompt]
    name, revision = split_revision(model)
    common: dict[str, Any] = {
        "prompt": windows[0][0],
        "continuation": windows[0][1],
        "reference_eos": reference_eos,
        "dtype": dtype,
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
    for line in result.lines():
        typer.echo(line)


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
def mia(
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the model, NAME@REVISION for a revision.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where scores, figures and record go.")],
    data: Annotated[str | None, typer.Argument(help="Members and non-members: a folder, a table, or a Hub name.")] = None,
    members: Annotated[str | None, typer.Option(help="Instead of DATA: a source of members.")] = None,
    nonmembers: Annotated[str | None, typer.Option(help="And one of non-members.")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="An attack; may be given again. Default: those that can run.")
    ] = None,
    reference_model: Annotated[str | None, typer.Option(help="A model that was not trained on the texts.")] = None,
    neighbour_model: Annotated[str | None, typer.Option(help="A masked language model, for neighbour.")] = None,
    neighbours: Annotated[int, typer.Option(help="Neighbours a text.")] = 10,
    frequencies: Annotated[str | None, typer.Option(help="Table of token counts, for dc_pdd.")] = None,
    columns: Annotated[Path | None, typer.Option(help="Parquet with sequence_id and columns such as gradient_norm.")] = None,
    references: Annotated[Path | None, typer.Option(help="Output of memtax counterfactual, for lira and rmia.")] = None,
    shots: Annotated[int, typer.Option(help="Non-members in the prefix of recall.")] = 8,
    chunk_words: Annotated[int | None, typer.Option(help="Score chunks of so many words, each in its place.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of text or tokens.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name; default: the model's.")] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the intervals.")] = 1000,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
) -> None:
    """Membership inference: how well members are told from non-members, and whether that shows anything.

    DATA is a folder with a file of each kind for every domain (github.member.jsonl, github.nonmember.jsonl), a table with
    a label column, `swj0419/WikiMIA::WikiMIA_length64` or `iamgroot42/mimir:github:ngram_13_0.8`.

    Example: `memtax mia data/ --model EleutherAI/pythia-70m --output runs/mia`

    Several processes: `accelerate launch -m memtax mia ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax mia ...` on CPUs.
    """
    options = dict(locals())
    from memtax.leakage.membership import run_command

    for line in run_command(**options).lines():
        typer.echo(line)


@app.command()
def paraphrase(
    data: Annotated[str, typer.Argument(help="Texts: a file, a folder of domains, or NAME[:CONFIG[:SPLIT]].")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the paraphraser, NAME@REVISION.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where parts, table, summary and record go.")],
    column: Annotated[str | None, typer.Option(help="Column of text, or several: question,answer.")] = None,
    mode: Annotated[
        str, typer.Option(help="greedy_Nprompts, beam_single_prompt, beam_Nprompts or nucleus_Nprompts.")
    ] = "greedy_Nprompts",
    prompts: Annotated[
        str, typer.Option(help="near_duplicate, syntactic_rewrite, bare, or a file of templates.")
    ] = "near_duplicate",
    count: Annotated[int, typer.Option(help="Paraphrases a text.")] = 3,
    beams: Annotated[int, typer.Option(help="Width of the beam search.")] = 5,
    top_p: Annotated[float, typer.Option(help="Of nucleus sampling.")] = 0.9,
    temperature: Annotated[float, typer.Option(help="Of nucleus sampling.")] = 0.5,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 discourages repetition.")] = 1.05,
    min_ratio: Annotated[float, typer.Option(help="Least new tokens, over those of the text.")] = 0.9,
    max_ratio: Annotated[float, typer.Option(help="Most new tokens, over those of the text.")] = 1.1,
    min_words: Annotated[int, typer.Option(help="Least words.")] = 3,
    max_edits: Annotated[float, typer.Option(help="Most edited characters and words, as a share.")] = 0.9,
    min_similarity: Annotated[float | None, typer.Option(help="Least cosine of the embeddings.")] = None,
    similarity_model: Annotated[str | None, typer.Option(help="A sentence-transformers model; default: MiniLM.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="Prompts at once.")] = 16,
) -> None:
    """Paraphrase texts with a language model; a paraphrase that fails is null, with the reason.

    Example: `memtax paraphrase data/ --model Qwen/Qwen2.5-1.5B-Instruct --output runs/paraphrases`
    """
    options = dict(locals())
    from memtax.corpus.membership import load_texts
    from memtax.leakage.paraphrase import Paraphraser
    from memtax.leakage.paraphrase import paraphrase as run_paraphrase
    from memtax.lm.loading import split_revision

    for name in ("data", "output", "column", "model"):
        options.pop(name)
    paraphraser = Paraphraser(*split_revision(model), **options)
    for line in run_paraphrase(load_texts(data, column=column), paraphraser, output, data).lines():
        typer.echo(line)


@app.command()
def counterfactual(
    data: Annotated[str, typer.Argument(help="Texts: a file, a folder of domains, or NAME[:CONFIG[:SPLIT]].")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the model to start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where models, scores and record go.")],
    models: Annotated[int, typer.Option(help="Models to train, each on a random part of the texts.")] = 8,
    share: Annotated[float, typer.Option(help="Share of the texts that each is trained on.")] = 0.5,
    full: Annotated[bool, typer.Option(help="Train all weights instead of a LoRA adapter.")] = False,
    epochs: Annotated[float, typer.Option(help="Passes over the texts.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Texts a step.")] = 16,
    max_length: Annotated[int, typer.Option(help="Tokens of a text that are trained on.")] = 256,
    lora_rank: Annotated[int, typer.Option(help="Rank of the adapter.")] = 16,
    seed: Annotated[int, typer.Option(help="Of subsets and training.")] = 1024,
    column: Annotated[str | None, typer.Option(help="Column of text.")] = None,
) -> None:
    """Counterfactual memorization: how much likelier a text is for models trained with it than for others.

    The scores serve `memtax mia --references` for the attacks lira and rmia. Finished models are not trained again.

    Example: `memtax counterfactual data/ --model EleutherAI/pythia-70m --models 16 --output runs/counterfactual`
    """
    options = dict(locals())
    from memtax.corpus.membership import load_texts
    from memtax.leakage.counterfactual import Training
    from memtax.leakage.counterfactual import counterfactual as run_counterfactual

    for name in ("data", "output", "column"):
        options.pop(name)
    for line in run_counterfactual(load_texts(data, column=column), Training(**options), output, data).lines():
        typer.echo(line)


@app.command()
def align(
    pairs: Annotated[str, typer.Argument(help="Rows with a text and its paraphrases: PATH or NAME[:CONFIG[:SPLIT]].")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the model, NAME@REVISION for a revision.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where parts, table, summary and record go.")],
    parameters: Annotated[str, typer.Option(help="head, embeddings+head, lora or all-linear.")] = "embeddings+head",
    column: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name; default: the model's.")] = None,
    length: Annotated[int | None, typer.Option(help="Most tokens of a text; default: the model's positions.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
) -> None:
    """Gradient alignment: how alike the gradients at a text and at its paraphrases are.

    The rows have a text and `paraphrases`, a list with null for each that failed, as `memtax paraphrase` writes them; or there
    is a row for each `paraphrase`. The table also holds the norm of the gradient at each text.

    Example: `memtax align runs/demo/paraphrases.parquet --model runs/demo/models/lm --output alignment`

    Several processes: `accelerate launch -m memtax align ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax align ...` on
    CPUs.
    """
    from memtax.corpus.sources import Source
    from memtax.engine import World
    from memtax.leakage.alignment import AlignmentFilter, align_table
    from memtax.lm.loading import split_revision

    name, revision = split_revision(model)
    function = AlignmentFilter(name, revision, parameters, tokenizer, length, dtype)
    found = align_table(Source.parse(pairs, column=column), function, output)
    if World.current().is_main:
        mean = "" if found["mean"] is None else f", mean cosine {found['mean']:.3f}"
        typer.echo(f"{found['aligned']:,} of {found['texts']:,} texts aligned{mean}")
        typer.echo(f"table    {output / 'alignment.parquet'}")
        typer.echo(f"summary  {output / 'summary.json'}")


@app.command()
def influence(
    train: Annotated[str, typer.Argument(help="Training examples, tokens or text: PATH or NAME[:CONFIG[:SPLIT]].")],
    test: Annotated[str, typer.Argument(help="Test examples, likewise.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the model or LoRA adapter.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where parts, tables, summary and record go.")],
    method: Annotated[list[str], typer.Option(help="gradient_match, datainf, lissa or repsim; may be given again.")] = [],  # noqa: B006
    parameters: Annotated[
        str | None, typer.Option(help="lora, head, embeddings+head or all-linear; default: lora if any.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of tokens or text.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Text before each example, outside the loss.")] = None,
    class_column: Annotated[str | None, typer.Option(help="Classes, for accuracy and coverage of the top k.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name, for text; default: the model's.")] = None,
    length: Annotated[int | None, typer.Option(help="Most tokens of an example; default: the model's positions.")] = None,
    top: Annotated[int, typer.Option(help="Training examples listed for each test example.")] = 10,
    iterations: Annotated[int, typer.Option(help="Of LiSSA.")] = 10,
    scale: Annotated[float | None, typer.Option(help="Of LiSSA; default: what converges.")] = None,
    per_tensor: Annotated[bool, typer.Option(help="Also the matrix of every tensor.")] = False,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
) -> None:
    """Influence of training examples on test examples: gradient match, DataInf, LiSSA and RepSim.

    An influence is negative where training on the example lowers the loss at the test example; RepSim is a cosine.

    Example: `memtax influence train.jsonl probes.jsonl --model runs/lora --class-column topic --output influence`

    Several processes: `accelerate launch -m memtax influence ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax influence
    ...` on CPUs.
    """
    from memtax.corpus.sources import Source
    from memtax.engine import World
    from memtax.leakage.influence import METHODS
    from memtax.leakage.influence_table import InfluenceSettings, influence_table
    from memtax.lm.loading import split_revision

    name, revision = split_revision(model)
    settings = InfluenceSettings(
        name,
        revision,
        tuple(method) or METHODS,
        parameters,
        prompt_column=prompt_column,
        class_column=class_column,
        tokenizer=tokenizer,
        length=length,
        top=top,
        iterations=iterations,
        scale=scale,
        per_tensor=per_tensor,
        dtype=dtype,
    )
    found = influence_table(Source.parse(train, column=column), Source.parse(test, column=column), settings, output)
    if World.current().is_main:
        typer.echo(f"{found['train']:,} training examples on {found['test']:,} test examples, parameters {found['parameters']}")
        for name, figures in found["methods"].items():
            shown = ", ".join(f"{key} {value['value']:.3f}" for key, value in figures.items() if value)
            typer.echo(f"{name:<15}{shown}".rstrip())
        for kind, file in (
            ("pairs", "influence.parquet"),
            ("matrices", "matrix.safetensors"),
            ("top", "top.parquet"),
            ("page", "index.html"),
        ):
            typer.echo(f"{kind:<9}{output / file}")
        typer.echo(f"summary  {output / 'summary.json'}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """Write the report of a run again.

    Example: `memtax report runs/demo`
    """
    from memtax.report import write

    typer.echo(write(run))


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Run directory, or the folder of one dataset or model.")],
    repo_id: Annotated[str, typer.Option("--repo-id", help="org/name of the dataset; models are named org/name-MODEL.")],
    part: Annotated[list[str], typer.Option(help="dataset, models or metrics; may be given again.")] = ["dataset", "models"],  # noqa: B006
    private: Annotated[bool, typer.Option("--private", help="New repositories are private; public ones are refused.")] = False,
    published: Annotated[
        str | None,
        typer.Option(help="SCHEME_MODEL: the dataset in the layout of usvsnsp/semantic-filters, with splits so named."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every file and card; send nothing.")] = False,
) -> None:
    """Publish a run on the Hugging Face Hub: dataset, models and, if asked, the metric Spaces, with cards.

    What is there already is not sent again, and a broken upload goes on where it was. The token is that of `hf auth login`
    or of HF_TOKEN.

    Example: `memtax push runs/demo --repo-id my-org/stdlib-memorization --dry-run`
    """
    from memtax.hub.publish import publish

    for line in publish(run, repo_id, part, private=private or None, dry_run=dry_run, published=published):
        typer.echo(line)


@app.command()
def explore(
    run: Annotated[str, typer.Argument(help="Run directory, or the name of a dataset that was pushed.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model for texts of your own.")] = None,
    port: Annotated[int, typer.Option(help="Where the page is served; 0: the first free one from 7860.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Browse a run: filter sequences, see their tokens and neighbours, analyse a text of your own (extra `explore`).

    Example: `memtax explore runs/demo --model runs/demo/models/small-gpt-neox`
    """
    from memtax.report.explore import Explorer
    from memtax.report.explore_app import page

    page(Explorer.load(run, model)).launch(server_port=port or None, inbrowser=browser)


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


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[float, ...]:
    from memtax.errors import MemtaxError

    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise MemtaxError(f"quantiles are numbers separated by commas, such as 0.25,0.5,0.75, not {text!r}") from None


def _fail(message: str) -> None:
    if _debug:
        raise
    printable = "".join(character if character.isprintable() else "?" for character in message)
    typer.echo(f"memtax: {printable}", err=True)
    sys.exit(2)
