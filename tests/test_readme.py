"""What the README says works as written."""

import importlib.util
import itertools
import json
import re
import shlex
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from memtax.cli import app
from memtax.files import asset
from memtax.results import read_summary

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


STAND_INS = {"EleutherAI/pythia-70m-deduped": "small-model", "iamgroot42/mimir:github:ngram_13_0.8": "small-mimir"}
"""Names on the Hub, and what the tests put in their place: there is no network."""


def blocks():
    """Fenced blocks in the order of the page: language and content."""
    return re.findall(r"^```(python|bash)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with a small model and dataset under the names of `STAND_INS`, and the two files of the examples."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    texts = [file.read_text(encoding="utf-8")[:1000] for file in sorted(Path(json.__file__).parent.glob("*.py"))]
    texts += [" ".join(f"{word} {number}" for word in ("a", "few", "words")) for number in range(60)]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=500, special_tokens=["<end>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, eos_token="<end>").save_pretrained(tmp_path / "small-model")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = GPTNeoXConfig(vocab_size=500, max_position_embeddings=1024, bos_token_id=0, eos_token_id=0, **shape)
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "small-model")
    (tmp_path / "small-mimir").mkdir()
    for kind, part in (("member", texts[0::2]), ("nonmember", texts[1::2])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (tmp_path / "small-mimir" / f"github.{kind}.jsonl").write_text(lines)
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:80]
    for name, part in (("train", files[0::2]), ("unseen", files[1::2])):
        rows = [{"text": file.read_text(encoding="utf-8")[:1000], "document": file.name} for file in part]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(block):
    """Run what the README's shell blocks hold: here-documents, memtax, and training scripts, each in this process."""
    for name, stand_in in STAND_INS.items():
        block = block.replace(name, stand_in)
    lines = iter(block.replace("\\\n", " ").splitlines())
    for line in lines:
        if here := re.fullmatch(r"cat > (\S+) <<'(\w+)'", line):
            Path(here[1]).write_text("\n".join(itertools.takewhile(lambda each: each != here[2], lines)) + "\n")
        elif line.startswith("memtax "):
            done = CliRunner().invoke(app, [*shlex.split(line)[1:], "--json"], catch_exceptions=False)
            assert done.exit_code == 0, line + done.output
            assert "output" in json.loads(done.stdout) or "repositories" in json.loads(done.stdout), line
        elif line.startswith("accelerate launch "):
            script, *arguments = shlex.split(line)[2:]
            path = asset(script)
            specification = importlib.util.spec_from_file_location(path.stem, path)
            module = sys.modules[path.stem] = importlib.util.module_from_spec(specification)
            specification.loader.exec_module(module)
            module.main(arguments)
        else:
            raise AssertionError(f"the README has a command that this test does not know: {line}")


def test_every_block_runs_as_it_is_written_and_prints_what_it_says(workplace, capsys):
    scope = {}
    ran = 0
    for language, block in blocks():
        if "..." in block:  # a fragment of the reader's own program
            continue
        ran += 1
        if language == "bash":
            shell(block)
            continue
        capsys.readouterr()
        exec(block, scope)
        assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", block), block
    assert ran == 6
    assert (workplace / "runs/mine/report/index.html").exists()
    audit = read_summary(workplace / "runs/audit", "audit")
    assert audit["adapter"] == "adapter"
    assert [row["repetitions"] for row in audit["canaries"]["by_repetitions"]] == [1, 16]
    assert audit["membership"]["measurable"]
    assert "attacks" in read_summary(workplace / "runs/mia", "mia")["domains"]["github"]


def test_measured_figures_are_those_of_the_results():
    table = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*? \| (.*?) \| (.*?) \| `(benchmarks/results/\w+\.md)` \|$", table, re.MULTILINE)
    assert len(rows) == table.count("| `benchmarks/results/") >= 9
    for measured, command, file in rows:
        results = (ROOT / file).read_text(encoding="utf-8")
        for figure in re.findall(r"\d[\d,.]*\d|\d", measured):
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d])", results), (file, figure)
        if command.startswith("`"):
            script, *options = command.strip("`").split()[1:]
            assert (ROOT / script).exists(), command
            source = (ROOT / script).read_text(encoding="utf-8")
            assert all(option in source for option in options if option.startswith("--")), command


def test_the_citation_is_of_this_version():
    import memtax

    assert f"version = {{{memtax.__version__}}}" in README
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == memtax.__version__
    dates = dict(re.findall(r"^## ([\d.]+) - ([\d-]+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert dates[memtax.__version__] == str(cited["date-released"])
    for file in (ROOT / "metrics").glob("*/requirements.txt"):
        assert f"memtax-{memtax.__version__}-" in file.read_text(), file


def test_workflows_run_commands_of_the_makefile():
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(file.read_text())["jobs"]
        commands = " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
        assert set(re.findall(r"\bmake (\w[\w-]*)", commands)) <= targets, file


def test_it_fits_on_a_few_screens():
    assert len(README.splitlines()) <= 150


def test_every_metric_module_has_a_path():
    import memtax

    assert Path(memtax.metric_path("membership_inference")).exists()
