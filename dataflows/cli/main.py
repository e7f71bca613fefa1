"""The `quantstream` command: every verb, gathered."""

import typer

from dataflows.cli import (
    demo,
    explain,
    life,
    models,
    models_bias,
    models_live,
    models_score,
    models_trial,
    operate,
    report,
    runs,
    train,
    verify,
)

app = typer.Typer(
    name="quantstream",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A streaming trading system that explains every fill and every non-trade from its log. "
    "Everything here trades on PAPER. Exit codes: 0 ok, 1 failed, 2 usage, 3 refused by a safety rule.",
)
for module in (demo, life, runs, explain, verify, report, operate, train, models):
    module.register(app)
models_score.register(models.models_app)
models_bias.register(models.models_app)
models_live.register(models.models_app)
models_trial.register(models.models_app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
