"""The figures of a run's page reach the dataset's repository and its card."""

import re
import shutil

import pytest

from memtax.hub.publish import plan
from memtax.report import figures, saving


def draw(folder, name, title, label="share"):
    with figures.style():
        axes = figures.panels(None, 2)[0, 0]
        axes.plot([0, 1], [0, 1])
        axes.set_xlabel(label)
    folder.mkdir(parents=True, exist_ok=True)
    saving.save(axes, folder, name, title)


@pytest.fixture
def drawn(run, tmp_path):
    copied = tmp_path / "telling--name" / "run"
    shutil.copytree(run, copied)
    folder = copied / "report" / "figures"
    draw(folder, "curves", "What | a *title* says--R&D " + "in more than one line " * 6)
    draw(folder, "extraction", "12% are memorized")
    return copied


def pushed(folder):
    return next(each for each in plan(folder, "org/name", ("dataset",)))


def test_card_shows_every_figure_with_its_conclusion(drawn):
    found = pushed(drawn)
    folder = drawn / "report" / "figures"
    assert {name for name in found.files if name.startswith("figures/")} == {"figures/curves.png", "figures/extraction.png"}
    assert all(found.files[f"figures/{path.name}"] == path for path in folder.glob("*.png"))
    shown = re.findall(r"^!\[(.*)\]\((figures/.*)\)$", found.card, re.MULTILINE)
    assert shown[0] == ("12% are memorized", "figures/extraction.png")
    assert shown[1] == ("What \\| a \\*title\\* says--R&amp;D " + ("in more than one line " * 6).strip(), "figures/curves.png")
    assert found.card.index("## Figures") < found.card.index("## Provenance")
    assert found.notes == pushed(drawn).notes
    assert not [note for note in found.notes if "figures" in note]


def test_figure_that_names_the_machine_stays(drawn):
    folder = drawn / "report" / "figures"
    draw(folder, "growth", "Growth", label=f"step of {drawn.parent}/model")
    found = pushed(drawn)
    assert "figures/growth.png" not in found.files
    assert "figures/growth.png" not in found.card
    assert "stays here: figures/growth.png names a path, user or host of this machine" in found.notes
    assert "figures/extraction.png" in found.files


def test_a_user_whose_name_is_a_word_of_svg_loses_no_figure(drawn, monkeypatch):
    monkeypatch.setenv("USER", "figure_1")
    assert "figures/extraction.png" in pushed(drawn).files
    draw(drawn / "report" / "figures", "growth", "Growth", label="by figure_1")
    found = pushed(drawn)
    assert "figures/growth.png" not in found.files
    assert "figures/extraction.png" in found.files


def test_without_figures_the_card_has_no_such_section(drawn):
    shutil.rmtree(drawn / "report")
    found = pushed(drawn)
    assert "Figures" not in found.card
    assert not [name for name in found.files if name.startswith("figures/")]
