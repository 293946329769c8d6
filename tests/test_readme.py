"""What the README says works as written."""

import dataclasses
import re
from pathlib import Path

from memtax.filters import CATALOGUE
from memtax.pipeline import RunConfig

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_filter_example_prints_what_it_says(capsys):
    example = re.search(r"```python\n(from datasets import Dataset.*?)```", README, re.DOTALL)[1]
    exec(example, {})
    said = re.search(r"print\(.*\)  # (.*)", example)[1]
    assert capsys.readouterr().out.strip() == said


def test_every_key_of_a_run_is_explained():
    table = README[README.index("| key | default |") : README.index("A run directory holds")]
    explained = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))))
    assert explained == {field.name for field in dataclasses.fields(RunConfig)}


def test_the_configuration_example_is_one(tmp_path):
    (tmp_path / "config.yaml").write_text(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    assert RunConfig.load(tmp_path / "config.yaml").output == "runs/mine"


def test_every_filter_is_listed_with_its_class():
    for name, where in CATALOGUE.items():
        assert re.search(rf"\| `{name}` \| `{where.split(':')[1]}\(", README), name


def test_every_verb_is_listed():
    from memtax.cli import app

    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert re.search(rf"`(memtax )?{name}`", README), name


def test_every_metric_module_has_a_path():
    import memtax

    assert Path(memtax.metric_path("membership_inference")).exists()
