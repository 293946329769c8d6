"""What makes a sequence memorized: fit, search, predict."""

from pathlib import Path
from typing import Annotated

import typer

from memtax.cli.base import app
from memtax.cli.outcome import Outcome, at


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
) -> Outcome:
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
    pushed = predictor.push_to_hub(push) if push is not None else None
    names = ("target", "factors", "rows", "dropped", "models")
    found = {"output": output, "pushed": pushed, **{name: predictor.metrics.get(name) for name in names}}
    return Outcome(found, [str(output), *([pushed] if pushed else [])])


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
) -> Outcome:
    """Search all two-rule partitions: chosen on validation rows, judged once on test rows.

    Example: `memtax search runs/demo/dataset:features --output runs/demo/search --greedy`
    """
    from memtax.pipeline.fitting import search as run_search

    found = run_search(
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
    return Outcome({"output": output, **(found or {})}, [str(output)])


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder of a predictor, or its name on the Hub.")],
    data: Annotated[str, typer.Argument(help="Dataset of any size: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the scored dataset.")],
    baseline: Annotated[bool, typer.Option("--baseline", help="Use the model for all, not the categories' models.")] = False,
) -> Outcome:
    """Add each sequence's probability of being memorized, streaming.

    Example: `memtax predict runs/demo/predictor corpus.parquet --output scored`
    """
    from memtax.taxonomy.predict import predict_dataset
    from memtax.taxonomy.predictor import Predictor

    return at(predict_dataset(Predictor.from_pretrained(model), data, output, "baseline" if baseline else "taxonomic"))


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[float, ...]:
    from memtax.errors import MemtaxError

    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise MemtaxError(f"quantiles are numbers separated by commas, such as 0.25,0.5,0.75, not {text!r}") from None
