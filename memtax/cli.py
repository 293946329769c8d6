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
    from memtax.leakage.membership import run_command

    options = dict(locals())
    options.pop("run_command")
    for line in run_command(**options).lines():
        typer.echo(line)


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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every file and card; send nothing.")] = False,
) -> None:
    """Publish a run on the Hugging Face Hub: dataset, models and, if asked, the metric Spaces, with cards.

    What is there already is not sent again, and a broken upload goes on where it was. The token is that of `hf auth login`
    or of HF_TOKEN.

    Example: `memtax push runs/demo --repo-id my-org/stdlib-memorization --dry-run`
    """
    from memtax.hub.publish import plan
    from memtax.hub.push import push as upload

    for repository in plan(run, repo_id, part):
        if dry_run:
            for line in repository.lines():
                typer.echo(line)
        else:
            typer.echo(upload(repository, private=private or None))


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


def _fail(message: str) -> None:
    if _debug:
        raise
    printable = "".join(character if character.isprintable() else "?" for character in message)
    typer.echo(f"memtax: {printable}", err=True)
    sys.exit(2)
