"""Options that verbs share, and the settings that follow from them."""

from pathlib import Path
from typing import Annotated

import typer

from infra.settings import Settings, load_settings

EnvironmentOption = Annotated[
    str | None, typer.Option("--env", "-e", help="Environment; replaces the setting `environment`.")
]
FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        exists=True,
        dir_okay=False,
        help="Parquet or CSV: trades, quotes or bars.",
    ),
]


def settings_for(environment: str | None = None) -> Settings:
    """Return the effective settings with the environment replaced.

    Raises:
        SettingsError: A setting is unknown or invalid.
    """
    settings = load_settings().settings
    if environment is None:
        return settings
    return Settings.model_validate(settings.model_dump() | {"environment": environment})
