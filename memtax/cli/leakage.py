"""What leaks about the training data: paraphrase, align, mia, influence, counterfactual."""

from pathlib import Path
from typing import Annotated

import typer

from memtax.cli.base import BOS, DTYPE, REVISED, SHOW, app, listed
from memtax.cli.outcome import Outcome
from memtax.progress import numbered


@app.command()
def paraphrase(
    data: Annotated[str, typer.Argument(help="Texts: a folder of domains, or path[:config[:split]].")],
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
    dtype: Annotated[str, typer.Option(help=DTYPE)] = "float32",
    batch_size: Annotated[int, typer.Option(help="Prompts at once.")] = 16,
) -> Outcome:
    """Paraphrase texts with a language model; a paraphrase that fails is null, with the reason.

    Example: `memtax paraphrase train.jsonl --column text --model Qwen/Qwen2.5-1.5B-Instruct --output runs/paraphrases`
    """
    options = dict(locals())
    from memtax.corpus.membership import load_texts
    from memtax.leakage.paraphrase import Paraphraser
    from memtax.leakage.paraphrase import paraphrase as run_paraphrase
    from memtax.lm.loading import split_revision

    for name in ("data", "output", "column", "model"):
        options.pop(name)
    paraphraser = Paraphraser(*split_revision(model), **options)
    result = run_paraphrase(load_texts(data, column=column), paraphraser, output, data)
    return Outcome({"output": output, **result.summary}, result.lines())


@app.command()
def align(
    pairs: Annotated[str, typer.Argument(help="Rows with a text and its paraphrases: path[:config[:split]].")],
    model: Annotated[str, typer.Option("--model", "-m", help=REVISED)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where parts, table, summary and record go.")],
    parameters: Annotated[str, typer.Option(help="head, embeddings+head, lora or all-linear.")] = "embeddings+head",
    column: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub name; default: the model's.")] = None,
    length: Annotated[int | None, typer.Option(help="Most tokens of a text; default: the model's positions.")] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE)] = "float32",
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
) -> Outcome:
    """Gradient alignment: how alike the gradients at a text and at its paraphrases are.

    The rows have a text and `paraphrases`, a list with null for each that failed, as `memtax paraphrase` writes them; or there
    is a row for each `paraphrase`. The table also holds the norm of the gradient at each text.

    Example: `memtax align runs/paraphrases/paraphrases.parquet --model runs/demo/models/small-gpt-neox --output alignment`

    Several processes: `accelerate launch -m memtax align ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax align ...` on
    CPUs.
    """
    from memtax.corpus.sources import Source
    from memtax.engine import World
    from memtax.leakage.alignment import AlignmentFilter, align_table
    from memtax.lm.loading import split_revision
    from memtax.report import verb_pages

    name, revision = split_revision(model)
    function = AlignmentFilter(name, revision, parameters, tokenizer, length, dtype, bos)
    found = align_table(Source.parse(pairs, column=column), function, output)
    if not World.current().is_main:
        return Outcome({}, [])
    page = verb_pages.align(output)
    mean = "" if found["mean"] is None else f", mean cosine {found['mean']:.3f}"
    lines = [f"{found['aligned']:,} of {found['texts']:,} texts aligned{mean}"]
    if area := found["membership"].get("auroc"):
        bounds = area["reason"] if area["low"] is None else f"{area['low']:.3f} to {area['high']:.3f}"
        lines.append(f"AUROC of members {area['value']:.3f} ({bounds})")
    lines += [f"table    {output / 'alignment.parquet'}", f"summary  {output / 'summary.json'}", f"page     {page}"]
    return Outcome({"output": output, "page": page, **found}, lines)


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
        str, typer.Option(help="pooled over all texts, per_text (needs many models), or shrunk between the two; for lira.")
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
def influence(
    train: Annotated[str, typer.Argument(help="Training examples, tokens or text: path[:config[:split]].")],
    test: Annotated[str, typer.Argument(help="Test examples, likewise.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the model or LoRA adapter.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where parts, tables, summary and record go.")],
    method: Annotated[
        list[str], typer.Option(help="gradient_match, datainf, lissa or repsim; default: all. May be repeated.")
    ] = [],  # noqa: B006
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
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="Also the matrix of every tensor.")] = False,
    dtype: Annotated[str, typer.Option(help=DTYPE)] = "float32",
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
    show_personal_data: Annotated[bool, typer.Option("--show-personal-data", help=SHOW)] = False,
) -> Outcome:
    """Influence of training examples on test examples: gradient match, DataInf, LiSSA and RepSim.

    An influence is negative where training on the example lowers the loss at the test example; RepSim is a cosine.

    Example: `memtax influence train.jsonl unseen.jsonl --model runs/demo/models/small-gpt-neox --output influence`

    Several processes: `accelerate launch -m memtax influence ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax influence
    ...` on CPUs.
    """
    from memtax.corpus.sources import Source
    from memtax.engine import World
    from memtax.leakage.influence import METHODS
    from memtax.leakage.influence_table import InfluenceSettings, influence_table
    from memtax.lm.loading import split_revision
    from memtax.report import verb_pages

    name, revision = split_revision(model)
    settings = InfluenceSettings(
        name,
        revision,
        tuple(listed(method)) or METHODS,
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
        bos=bos,
        show_personal_data=show_personal_data,
    )
    found = influence_table(Source.parse(train, column=column), Source.parse(test, column=column), settings, output)
    if not World.current().is_main:
        return Outcome({}, [])
    page = verb_pages.influence(output)
    pair = f"{numbered(found['train'], 'training example')} on {numbered(found['test'], 'test example')}"
    lines = [f"{pair}, parameters {found['parameters']}"]
    for name, figures in found["methods"].items():
        shown = ", ".join(f"{key} {value['value']:.3f}" for key, value in figures.items() if value)
        if shown:
            lines.append(f"{name:<15}{shown}")
    files = {"pairs": "influence.parquet", "matrices": "matrix.safetensors", "top": "top.parquet", "summary": "summary.json"}
    lines += [f"{kind:<9}{output / file}" for kind, file in files.items()]
    return Outcome({"output": output, "page": page, **found}, [*lines, f"page     {page}"])


@app.command()
def counterfactual(
    data: Annotated[str, typer.Argument(help="Texts: a folder of domains, or path[:config[:split]].")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub name of the model to start from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where models, scores and record go.")],
    models: Annotated[int, typer.Option(help="Models to train, each on a random part of the texts.")] = 8,
    share: Annotated[float, typer.Option(help="Share of the texts that each is trained on.")] = 0.5,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of a LoRA adapter.")] = False,
    epochs: Annotated[float, typer.Option(help="Passes over the texts.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Texts a step.")] = 16,
    max_length: Annotated[int, typer.Option(help="Tokens of a text at once; a longer one is trained on in pieces.")] = 256,
    lora_rank: Annotated[int, typer.Option(help="Rank of the adapter.")] = 16,
    seed: Annotated[int, typer.Option(help="Of subsets and training.")] = 1024,
    bos: Annotated[str, typer.Option(help=BOS)] = "auto",
    column: Annotated[str | None, typer.Option(help="Column of text.")] = None,
) -> Outcome:
    """Counterfactual memorization: how much likelier a text is for models trained with it than for others.

    The scores serve `memtax mia --references` for the attacks lira and rmia. Finished models are not trained again.

    Example: `memtax counterfactual train.jsonl --model EleutherAI/pythia-70m --models 16 --output runs/counterfactual`

    Several processes train models side by side: `accelerate launch -m memtax counterfactual ...` on GPUs, `torchrun
    --nproc_per_node 2 -m memtax counterfactual ...` on CPUs.
    """
    options = dict(locals())
    from memtax.corpus.membership import load_texts
    from memtax.leakage.counterfactual import Training
    from memtax.leakage.counterfactual import counterfactual as run_counterfactual

    for name in ("data", "output", "column"):
        options.pop(name)
    result = run_counterfactual(load_texts(data, column=column), Training(**options), output, data)
    return Outcome({"output": output, **result.summary}, result.lines())


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
