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
    length: Annotated[int | None, typer.Option(help="Tokens of a row that are read; default: what the windows cover.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of tokens or text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name, for text; default: the model's.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    batch_size: Annotated[str, typer.Option(help="Sequences a forward pass, or auto: what fits.")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="auto spreads a large model over all devices.")] = None,
    quantization: Annotated[str | None, typer.Option(help="8bit or 4bit, where bitsandbytes is installed.")] = None,
) -> None:
    """Score sequences by one forward pass: perplexities, extraction, and more where asked.

    Every pair of a prompt and a continuation length is measured, from the same pass.

    Example: `memtax score runs/demo/corpus --model runs/demo/models/lm --prompt 16 --prompt 32 --output scores`

    Several processes: `accelerate launch -m memtax score ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax score ...`
    on CPUs.
    """
    from memtax.corpus.sources import Source
    from memtax.errors import MemtaxError
    from memtax.filters.scores import LanguageModelFilter
    from memtax.lm.loading import split_revision
    from memtax.pipeline.scoring import score_sequences

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
    result = score_sequences(source, scores, output, reference=reference, tokenizer=tokenizer, length=length)
    for line in result.lines():
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
