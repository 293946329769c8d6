"""What makes a sequence memorized: fit, search, predict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from memtax.cli.base import BOS, app, listed, numbers
from memtax.cli.outcome import Outcome


@app.command()
def fit(
    data: Annotated[str, typer.Argument(help="Dataset of sequences with their factors: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the predictor.")],
    factors: Annotated[list[str] | None, typer.Option(help="Columns; default: the published ones. May be repeated.")] = None,
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
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
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
        factors=listed(factors) or None,
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
        probe_layers(data, probe, predictor, output, bos=bos)
    pushed = predictor.push_to_hub(push) if push is not None else None
    names = ("target", "factors", "rows", "dropped", "models")
    found = {"output": output, "pushed": pushed, **{name: predictor.metrics.get(name) for name in names}}
    where = [f"predictor  {output}", *([f"pushed     {pushed}"] if pushed else [])]
    return Outcome(found, [*_figures(predictor.metrics.get("models") or {}), *where])


@app.command()
def search(
    data: Annotated[str, typer.Argument(help="Dataset of sequences with their factors: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results; finished parts are kept.")],
    factors: Annotated[list[str] | None, typer.Option(help="Columns of the models. May be repeated.")] = None,
    split_on: Annotated[list[str] | None, typer.Option(help="Columns that rules ask about. May be repeated.")] = None,
    quantiles: Annotated[list[str], typer.Option(help="Of memorized rows. May be repeated.")] = ["0.25,0.5,0.75"],  # noqa: B006
    criterion: Annotated[str, typer.Option(help="log_loss, brier, roc_auc, pr_auc or f1, on validation rows.")] = "log_loss",
    target: Annotated[str, typer.Option(help="Boolean column to predict.")] = "is_memorized",
    seed: Annotated[int, typer.Option(help="Seed of split and bootstrap.")] = 1024,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of each interval.")] = 1000,
    start: Annotated[int, typer.Option(help="First partition of this slice.")] = 0,
    stop: Annotated[int | None, typer.Option(help="End of this slice (not in it).")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help="Folder with another slice. May be repeated.")] = None,
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
        factors=listed(factors) or None,
        split_on=listed(split_on) or None,
        quantiles=numbers(quantiles, "--quantiles", float),
        criterion=criterion,
        target=target,
        seed=seed,
        resamples=resamples,
    )
    lines = []
    if found and found.get("chosen"):
        rule, judged = found["chosen"], found["metrics"]["models"]
        lines += [
            f"A if {rule['factor_1']} >= {rule['threshold_1']:g}, else "
            f"B if {rule['factor_2']} >= {rule['threshold_2']:g}, else C",
            f"the best of {found['partitions']:,} partitions by {found['criterion']} on validation rows; on test rows:",
            *_figures({name: {"aggregate": judged[name]["aggregate"]} for name in judged}),
        ]
    return Outcome({"output": output, **(found or {})}, [*lines, f"results  {output}"])


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="Folder of a predictor, or its name on the Hub.")],
    data: Annotated[str, typer.Argument(help="Dataset of any size: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the scored dataset.")],
    baseline: Annotated[bool, typer.Option("--baseline", help="Use the model for all, not the categories' models.")] = False,
) -> Outcome:
    """Add each sequence's probability of being memorized, streaming.

    Example: `memtax predict runs/demo/predictor runs/demo/dataset:features --output risk`
    """
    from memtax.taxonomy.predict import predict_dataset, summarize
    from memtax.taxonomy.predictor import Predictor

    path = predict_dataset(Predictor.from_pretrained(model), data, output, "baseline" if baseline else "taxonomic")
    found = summarize(path)
    told = f"{found['rows']:,} rows, {found['without_probability']:,} of them without a probability"
    if found["expected_memorized"] is not None:
        told += f"; {found['expected_memorized']:,.1f} expected to be memorized, {found['likely']:,} more likely than not"
    return Outcome({"output": path, **found}, [told, f"dataset  {path}"])


def _figures(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """ROC-AUC on the test rows, a line a model and group."""
    from memtax.report.words import estimate, label

    found = []
    for name, groups in models.items():
        for group, cell in groups.items():
            told = (
                estimate(cell["roc_auc"]).replace("\u00a0", " ") if cell.get("roc_auc") else f"withheld: {cell.get('reason')}"
            )
            found.append(f"{name:<11}{label(group):<15}ROC-AUC {told}")
    return found
