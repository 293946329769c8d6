"""Settings: what a file, a call and a command line may say, and what each is told otherwise."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtax.errors import MemtaxError
from memtax.settings import COMMAND_LINE, argument, fields, flag_of, from_values, option, to_values


@dataclass(frozen=True, kw_only=True)
class Shared:
    output: Path = option("Directory.", short="-o")
    seed: int = option("Seed.", 7, least=0, most=9)


@dataclass(frozen=True, kw_only=True)
class Example(Shared):
    rate: float = option("Rate.", 0.5)
    kind: Literal["a", "b"] = option("Kind.", "a")
    sizes: tuple[int, ...] = option("Sizes.", (1, 2))
    name: str | None = option("Name.", None)
    loud: bool = option("Loud.", False)
    paths: tuple[str, ...] = argument("Inputs.")


@given(
    st.builds(
        dict,
        paths=st.lists(st.text(min_size=1).filter(str.strip), min_size=1),
        output=st.just("out"),
        seed=st.integers(0, 9),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        kind=st.sampled_from("ab"),
        sizes=st.lists(st.integers(), min_size=1),
        name=st.none() | st.text(min_size=1).filter(str.strip),
        loud=st.booleans(),
    )
)
def test_settings_survive_their_record(values):
    settings = from_values(Example, values)
    assert from_values(Example, to_values(settings)) == settings
    assert to_values(settings) == {name: values[name] for name in to_values(settings)}


def test_texts_of_a_command_line_are_read():
    told = from_values(Example, {"paths": ["x,y"], "output": "o", "sizes": "3,4, 5", "rate": "2", "seed": "3"})
    assert (told.sizes, told.rate, told.seed, told.output) == ((3, 4, 5), 2.0, 3, Path("o"))
    # A path may hold a comma.
    assert told.paths == ("x,y",)
    assert from_values(Example, {"paths": ["x"], "output": "o", "seed": None}).seed == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sede": 1}, "unknown key 'sede' in the configuration; did you mean 'seed'"),
        ({"seed": 10}, "seed is 10; it must be at most 9"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"seed": True}, "seed expects a whole number, got True"),
        ({"seed": "x"}, "seed expects a whole number, got 'x'"),
        ({"seed": 1.5}, "seed expects a whole number, got 1.5"),
        ({"rate": "much"}, "rate expects a number, got 'much'"),
        ({"rate": "nan"}, "rate expects a number, got nan"),
        ({"rate": [1]}, r"rate expects a number, got \[1\]"),
        ({"kind": "c"}, "kind expects one of a, b, got 'c'"),
        ({"sizes": {"a": 1}}, "sizes expects a list, got"),
        ({"sizes": ["1", "two"]}, "sizes expects a whole number, got 'two'"),
        ({"name": "  "}, "name is empty; give a value or leave it out"),
        ({"name": 3}, "name expects text, got 3"),
        ({"loud": "yes"}, "loud expects true or false, got 'yes'"),
        ({"output": None}, "output is missing: directory."),
        ({"paths": None}, "paths is missing: inputs."),
    ],
)
def test_what_does_not_fit_is_one_line(values, message):
    with pytest.raises(MemtaxError, match=message) as caught:
        from_values(Example, {"paths": ["x"], "output": "o", **values})
    assert "\n" not in str(caught.value)


def test_the_command_line_is_told_its_flags():
    with pytest.raises(MemtaxError, match=r"^--seed is 10; it must be at most 9$"):
        from_values(Example, {"seed": "10"}, COMMAND_LINE)
    with pytest.raises(MemtaxError, match=r"^PATHS is missing: inputs\.$"):
        from_values(Example, {"output": "o"}, COMMAND_LINE)


def test_arguments_come_first_then_what_is_required_then_the_verbs_own():
    assert list(fields(Example)) == ["paths", "output", "rate", "kind", "sizes", "name", "loud", "seed"]
    assert flag_of("show_personal_data") == "--show-personal-data"
