"""The `headrace` command."""

import os

import typer

from headrace_stack.commands import apply, backup, dead_letters, events, keys, models, samples, serve, stack, workflows
from headrace_stack.commands.terminal import Commands
from headrace_stack.demo.command import demo
from headrace_stack.layout import Layout
from headrace_stack.replay.command import replay
from headrace_stack.simulate.command import simulate

app = typer.Typer(
    name="headrace",
    cls=Commands,
    help="Headrace: a real-time recommender platform. Exit codes: 0, 1 failed, 2 wrong usage, 3 something needed is down.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

stack.register(app)
app.command()(demo)
app.command()(simulate)
app.command()(replay)
for subject in (apply, backup, serve, samples, models, workflows, events, dead_letters, keys):
    subject.register(app)


def main() -> None:
    """Entry point."""
    os.environ.setdefault("HEADRACE_HOME", str(Layout.from_environment().home))
    app()


if __name__ == "__main__":
    main()
