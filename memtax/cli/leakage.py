"""What leaks about the training data: paraphrase, align, mia, influence, counterfactual."""

from pathlib import Path
from typing import Annotated

import typer

from memtax.cli.base import BOS, DTYPE, REVISED, SHOW, app, listed
from memtax.cli.outcome import Outcome


@app.command()
def mia(
    model: Annotated[str, typer.Option("--model", "-m", help=REVISED)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where scores, figures and record go.")],
    data: Annotated[str | None, typer.Argument(help="Members and non-members: a folder, a table, or a Hub name.")] = None,
    members: Annotated[str | None, typer.Option(help="Instead of DATA: a source of members.")] = None,
    nonmembers: Annotated[str | None, typer.Option(help="And one of non-members.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="An attack; default: those that can run. May be repeated.")] = None,
    reference_model: Annotated[str | None, typer.Option(help="A model that was not trained on the texts.")] = None,
    neighbour_model: Annotated[str | None, typer.Option(help="A masked language model, for neighbour.")] = None,
    neighbours: Annotated[int, typer.Option(help="Neighbours a text.")] = 10,
    neighbour_texts: Annotated[
        str | None, typer.Option(help="Instead: perturbed texts, so many for each text and in its order.")
    ] = None,
    frequencies: Annotated[str | None, typer.Option(help="Table of token counts, for dc_pdd.")] = None,
    columns: Annotated[Path | None, typer.Option(help="Parquet with sequence_id and columns such as gradient_norm.")] = None,
    references: Annotated[Path | None, typer.Option(help="Output of memtax counterfactual, for lira and rmia.")] = None,
    lira_variances: Annotated[
        str, typer.Option(help="pooled over all texts, or per_text, which needs many models; for lira.")
    ] = "pooled",
    rmia_a: Annotated[
        float, typer.Option(help="Constant a of offline rmia, from 0 to 1; 1: the mean of the models without the text.")
    ] = 1.0,
    shots: Annotated[int, typer.Option(help="Non-members in the prefix of recall.")] = 8,
    chunk_words: Annotated[int | None, typer.Option(help="Score chunks of so many words, each in its place.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of text or tokens.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name; default: the model's.")] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of the intervals.")] = 1000,
    dtype: Annotated[str, typer.Option(help=DTYPE)] = "float32",
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
) -> Outcome:
    """Membership inference: how well members are told from non-members, and whether that shows anything.

    DATA is a folder with a file of each kind for every domain (github.member.jsonl, github.nonmember.jsonl), a table with
    a label column, `swj0419/WikiMIA::WikiMIA_length64` or `iamgroot42/mimir:github:ngram_13_0.8`. The neighbours published for
    WikiMIA: `--neighbour-texts zjysteven/WikiMIA_paraphrased_perturbed::WikiMIA_length64_perturbed`.

    Example: `memtax mia runs/demo/dataset:membership --model runs/demo/models/small-gpt-neox --output runs/mia`

    Several processes: `accelerate launch -m memtax mia ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax mia ...` on CPUs.
    """
    options = dict(locals())
    from memtax.engine import World
    from memtax.leakage.membership import run_command
    from memtax.report import verb_pages

    result = run_command(**options | {"attack": listed(attack) or None})
    if not World.current().is_main:
        return Outcome({}, [])
    page = verb_pages.mia(output)
    return Outcome({"output": output, "page": page, **result.summary}, [*result.lines(), f"page     {page}"])


@app.command()
def audit(
    model: Annotated[str, typer.Option("--model", "-m", help=REVISED)],
    train: Annotated[str, typer.Option(help="What it was trained on: path[:config[:split]].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where page, figures and runs go.")],
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter of the model, which is then audited.")] = None,
    held_out: Annotated[str | None, typer.Option(help="Texts of the same kind that it was not trained on.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of text or tokens.")] = None,
    prompt: Annotated[int, typer.Option(help="Prompt tokens.")] = 32,
    continuation: Annotated[int, typer.Option(help="Continuation tokens.")] = 32,
    dtype: Annotated[str, typer.Option(help=DTYPE)] = "float32",
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
    region: Annotated[str, typer.Option(help="Country of telephone numbers without a country code.")] = "US",
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples of membership inference.")] = 1000,
    canaries: Annotated[Path | None, typer.Option(help="Record of planted canaries; default: the model's own.")] = None,
    show_personal_data: Annotated[bool, typer.Option("--show-personal-data", help=SHOW)] = False,
) -> Outcome:
    """Audit a fine-tuned model: what can be extracted, what of it is worrying, who can tell members, what to do.

    Example: `memtax audit --model runs/demo/models/small-gpt-neox --train train.jsonl --held-out unseen.jsonl --output audit`
    """
    options = dict(locals())
    from memtax.leakage.canaries import conclusion
    from memtax.pipeline.audit import audit as run_audit
    from memtax.pipeline.audit_page import headline

    found = run_audit(**options)
    if not found:  # not the main process
        return Outcome({}, [])
    told = [headline(found), *([conclusion(found["canaries"])] if found["canaries"]["measurable"] else [])]
    files = {"page": output / "index.html", "figures": output / "audit.json", "card": output / "card_section.md"}
    told += [f"{kind:<8}{path}" for kind, path in files.items()]
    return Outcome({"output": output, "page": files["page"], **found}, told)
