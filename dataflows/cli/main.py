"""The `quantstream` command: every verb, gathered."""

import typer

from dataflows.cli import demo, explain, life, market, operate, runs

app = typer.Typer(
    name="quantstream",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="A streaming trading system that explains every fill and every non-trade from its log. "
    "Everything here trades on PAPER.",
)
for module in (life, runs, market, explain, operate, demo):
    module.register(app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
