"""A verb and its record, compared byte for byte."""

import yaml

from memtax.jobs import job_class


def made(output):
    """Relative name to bytes of tables, summary and page."""
    files = [output / "summary.json", *output.glob("index.html"), *(output / "dataset").rglob("*.parquet")]
    assert len(files) > 1
    return {path.relative_to(output): path.read_bytes() for path in files}


def settings(folder, values):
    path = folder / "settings.yaml"
    path.write_text(
        yaml.safe_dump({name: list(value) if isinstance(value, tuple) else value for name, value in values.items()})
    )
    return path


def replay(verb, values, folder):
    """Run a verb and its record, and compare."""
    folder.mkdir(exist_ok=True)
    job_class(verb).load(settings(folder, values), output=str(folder / "one")).run()
    job_class(verb).load(folder / "one" / "run.yaml", output=str(folder / "two")).run()
    assert made(folder / "two") == made(folder / "one"), verb
    return str(folder / "one")
