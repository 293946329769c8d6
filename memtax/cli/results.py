"""What is done with results: report, explore, push, env."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer

from memtax.cli.base import BOS, app, listed
from memtax.cli.outcome import Outcome

PARTS = "dataset, models, metrics or explorer. May be repeated."


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Directory of a run or audit.")],
    latex: Annotated[
        bool, typer.Option("--latex", help="Also write every table of the page as LaTeX, in report/tables.")
    ] = False,
) -> Outcome:
    """Write the report of a run again.

    Example: `memtax report runs/demo --latex`
    """
    from memtax.report import write

    page = write(run, latex=latex)
    found = {"output": run, "page": page, "figures": page.parent / "figures"}
    lines = [str(page)]
    if latex:
        tables = page.parent / "tables"
        found["tables"] = tables
        lines.append(f"{tables}: {len(list(tables.glob('*.tex')))} tables")
    return Outcome(found, lines)


@app.command()
def explore(
    run: Annotated[str, typer.Argument(help="Directory of a run or audit, or the name of a dataset that was pushed.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model for texts of your own.")] = None,
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
    port: Annotated[int, typer.Option(help="Where the page is served; 0: the first free one from 7860.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> Outcome:
    """Browse a run: filter sequences, see their tokens and neighbours, analyse a text of your own (extra `explore`).

    Example: `memtax explore runs/demo --model runs/demo/models/small-gpt-neox`
    """
    from memtax.report.explore import Explorer
    from memtax.report.explore_app import page

    served = page(Explorer.load(run, model, bos))
    _, address, _ = served.launch(server_port=port or None, inbrowser=browser, prevent_thread_lock=True, quiet=True)

    def serve() -> None:
        try:
            Event().wait()
        except KeyboardInterrupt:  # how one ends it
            served.close(verbose=False)

    return Outcome({"run": run, "model": model, "address": address}, [f"{run} at {address}; Ctrl-C ends it"], serve)


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Directory of a run or audit, or the folder of one dataset or model.")],
    repo_id: Annotated[str, typer.Option("--repo-id", help="org/name of the dataset; models are named org/name-MODEL.")],
    part: Annotated[list[str], typer.Option(help=PARTS)] = ["dataset", "models"],  # noqa: B006
    private: Annotated[bool, typer.Option("--private", help="New repositories are private; public ones are refused.")] = False,
    published: Annotated[
        str | None,
        typer.Option(help="SCHEME_MODEL: the dataset in the layout of usvsnsp/semantic-filters, with splits so named."),
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Send training_rows.json and the record of canaries with a trained model.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every file and card, what was rewritten and what stays; send nothing.")
    ] = False,
) -> Outcome:
    """Publish a run on the Hugging Face Hub: dataset, models and, if asked, the metric Spaces, with cards.

    Paths below your folders, and the names of user and host, are replaced in what is sent; a credential is refused.
    What is there already is not sent again, and a broken upload goes on where it was. The token is that of `hf auth login`
    or of HF_TOKEN.

    Example: `memtax push runs/demo --repo-id my-org/stdlib-memorization --dry-run`
    """
    from memtax.hub.publish import publish

    repositories: list[dict[str, Any]] = []

    def lines() -> Iterator[str]:
        # Each is told when its repository is done.
        options: dict[str, Any] = {"dry_run": dry_run, "published": published, "records": records}
        for done in publish(run, repo_id, listed(part), private=private or None, **options):
            repositories.append(done.facts())
            yield from done.lines()

    return Outcome({"repo_id": repo_id, "dry_run": dry_run, "repositories": repositories}, lines())


@app.command()
def env() -> Outcome:
    """Print what a bug report needs: versions, platform, processors, memory, accelerators.

    Example: `memtax env`
    """
    import yaml

    from memtax.provenance import environment

    found = environment()
    return Outcome(found, [yaml.safe_dump(found, sort_keys=False).rstrip()])
