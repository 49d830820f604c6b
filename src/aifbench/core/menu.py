"""What a benchmark tells the people who launch it, and what they are asked. Pure.

The form, the menu in the terminal, the checks of a launch and the monitor are made from this: none of them knows a
benchmark by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aifbench.core.params import Params


@dataclass(frozen=True)
class Hardware:
    """A piece of hardware that a launch may ask for, and the key of the suite that it sets."""

    key: str
    """A field of the parameters, or a field below one, such as `engine.gpus`."""
    text: str
    """One line of help."""
    words: Mapping[Any, Any] = field(default_factory=dict)
    """The value of the suite for each word of a launch; without any, a launch gives the value itself."""


@dataclass(frozen=True)
class Menu:
    """The menu of one benchmark. `check` holds it against the fields of its parameters."""

    text: str
    """What the benchmark measures, in a sentence."""
    axis: str
    """The field that most suites vary: a terminal asks for it."""
    question: str
    """How a terminal asks for it."""
    unit: str
    """What one unit of its work is called, in the plural."""
    shown: tuple[str, ...] = ()
    """Fields that a form shows at once, whatever the preset holds; others are under `More parameters`."""
    hardware: Mapping[str, Hardware] = field(default_factory=dict)
    """What of `resources` of a launch it takes, by dotted path, such as `clients.cores`."""
    without_gpus: Mapping[str, str] = field(default_factory=dict)
    """Kinds of engine that never compute on a GPU, each with what to do instead."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Words that a free text may be, besides others, by field."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The same where the words are names of files: a pattern below the folder of the configuration, by field."""

    def check(self, params: type[Params]) -> None:
        """Raise ValueError where the menu names a field that the parameters do not have."""
        keys = [part.key.partition(".")[0] for part in self.hardware.values()]
        for name in (self.axis, *self.shown, *self.words, *self.files, *keys):
            if name not in params.model_fields:
                raise ValueError(f"the menu names '{name}', which is no field of {params.__name__}")
