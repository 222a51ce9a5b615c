"""A live bar for each stage of a run, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class BarReporter(Progress):
    """Shows a live line for each stage, with a bar where the number of rows is known."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.fields[stage]:<8}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            # Without markup, which would turn `:id` in an address into a picture and `[x]` into nothing.
            TextColumn("{task.description}", style="dim", markup=False),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}

    def begin(self, stage: str) -> None:
        """Add the line of a stage."""
        self._bars[stage] = self.add_task("", stage=stage, total=None)

    def step(self, stage: str, what: str, done: int | None = None, total: int | None = None) -> None:
        """Move the bar of a stage, or change its text."""
        if stage not in self._bars:
            return
        if done is None:
            self.update(self._bars[stage], description=what)
        else:
            self.update(self._bars[stage], description=f"{what} {done:,} rows", completed=done, total=total)

    def end(self, stage: str, status: str, seconds: float) -> None:
        """Complete the line of a stage."""
        if stage not in self._bars:
            self.begin(stage)
        self.update(self._bars[stage], description=status, total=1, completed=1)
