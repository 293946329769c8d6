"""`memtax explore`: a run in the browser."""

from dataclasses import dataclass
from threading import Event
from typing import ClassVar

from memtax.jobs.base import Command, Finished
from memtax.jobs.options import DTYPE, PlacementOptions
from memtax.settings import Bos, Dtype, argument, option


@dataclass(frozen=True, kw_only=True)
class Explore(PlacementOptions, Command):
    """Browse a run: filter sequences, see their tokens and neighbors, analyze your own text (extra `explore`).

    Example: `memtax explore runs/demo --model runs/demo/models/small-gpt-neox`
    """

    needs: ClassVar[tuple[str, ...]] = ("explore",)

    directory: str = argument("Output of run or audit, or the Hub name of a pushed dataset.")
    model: str | None = option("Model for analyzing your own texts.", None, short="-m")
    bos: Bos = option(
        "Beginning-of-sequence token before each row, never scored: auto (if the tokenizer adds it), always or never.", "auto"
    )
    dtype: Dtype = option(DTYPE, "auto")
    port: int = option("Port of the page; 0: the first free one from 7860.", 0, least=0, most=65_535)
    browser: bool = option("Open the page.", True)

    def run(self) -> Finished:
        """Serve the page; see `memtax.report.explorer_app`."""
        from memtax.lm.resident import Placement
        from memtax.report.explorer import Explorer
        from memtax.report.explorer_app import page

        placement = Placement(self.dtype, self.device_map, self.quantization)
        served = page(Explorer.load(self.directory, self.model, self.bos, placement))
        options = {"server_port": self.port or None, "inbrowser": self.browser, "prevent_thread_lock": True, "quiet": True}
        _, address, _ = served.launch(**options)

        def serve() -> None:
            try:
                Event().wait()
            except KeyboardInterrupt:  # the normal way to stop
                served.close(verbose=False)
                raise SystemExit(0) from None

        figures = {"directory": self.directory, "model": self.model, "address": address}
        return Finished(None, figures, [f"{self.directory} at {address}; Ctrl-C ends it"], then=serve)
