"""Arguments and options that several commands have, and what they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aifbench.core.errors import ConfigError

if TYPE_CHECKING:
    from aifbench.campaign.config import Config as Campaign
    from aifbench.core.damage import Damage

Results = Annotated[
    Path, typer.Argument(help="Results folder of a campaign, such as results/laptop.", show_default=False)
]
AllResults = Annotated[Path, typer.Option("--results", help="Folder of all campaigns' results.")]
Project = Annotated[Path, typer.Option("--project", help="Checkout with workflow, profiles and config.")]
Config = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", "-c", help="Campaign file; repeat it to lay one over another.", show_default="config/config.yaml"
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one top-level key.", show_default=False),
]
Here = Annotated[
    bool | None,
    typer.Option(
        "--open/--no-open",
        help="The browser is on this machine, and is opened, or at the other end of SSH. Default: found out.",
        show_default=False,
    ),
]


def campaign_of(files: list[Path] | None, settings: list[str] | None) -> Campaign:
    """Return the campaign that `--config` and `--set` describe. Raises `ConfigError`."""
    from aifbench.campaign.config import DEFAULT_CONFIG, read_config

    if not files and not DEFAULT_CONFIG.exists():
        problem = "no such file: name one, or run this in a checkout or in what `aifbench init` makes"
        raise ConfigError("--config", str(DEFAULT_CONFIG), problem)
    return read_config(files or [DEFAULT_CONFIG], overrides(settings or []))


def overrides(settings: list[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as a mapping; values are YAML. Raises `ConfigError`."""
    from aifbench.files.yamlfile import read_text

    values: dict[str, Any] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            raise ConfigError("--set", setting, "needs the form KEY=VALUE")
        values[key] = read_text(value, where="--set", key=key)
    return values


def nested(settings: list[str]) -> dict[str, Any]:
    """Return `a.b=VALUE` texts as nested mappings; values are YAML. Raises `ConfigError`."""
    values: dict[str, Any] = {}
    for key, value in overrides(settings).items():
        *parts, last = key.split(".")
        place = values
        for part in parts:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError("--set", key, f"{part} has a value already")
            place = inner
        place[last] = value
    return values


def print_damage(damage: Iterable[Damage]) -> None:
    """Print a line per damaged file to standard error."""
    for each in damage:
        typer.echo(f"damaged: {each}", err=True)
