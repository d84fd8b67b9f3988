"""One self-contained page: pictures as data URIs, no script, no network, no dates; light and dark, for phones too."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldmodels.report.template import TEMPLATE


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        png: the PNG file's bytes.
        alt: what it shows, for readers who do not see it.
        caption: how to read it, one or two sentences below it.
        wide: it scrolls sideways on a narrow screen instead of shrinking until nothing can be seen.
    """

    png: bytes
    alt: str
    caption: str
    wide: bool = False

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Film:
    """A video of the page. It plays by itself, without sound, again and again.

    Attributes:
        mp4: the file's bytes.
        poster: a PNG file's bytes, shown before it plays.
        caption: what it shows.
    """

    mp4: bytes
    poster: bytes
    caption: str

    @property
    def uri(self) -> str:
        """The video as a data URI."""
        return "data:video/mp4;base64," + base64.b64encode(self.mp4).decode()

    @property
    def poster_uri(self) -> str:
        """The picture before it as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.poster).decode()


@dataclass(frozen=True)
class Part:
    """What the page says of one agent or world model; it is folded away.

    Attributes:
        key: of the agent or the world model.
        about: one line that stands beside the key.
        facts: name -> text.
        pictures: in the order of reading.
        params: dotted name -> value.
        hashes: file -> hash.
    """

    key: str
    about: str
    facts: Mapping[str, str]
    pictures: Sequence[Picture]
    params: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GamePage:
    """What the page says of one game.

    Attributes:
        name: of the environments in params.yaml that are this game.
        rules: by which all scores of it were made, and the back end.
        headline: one sentence: how well it went.
        details: what a reader of the headline needs beside it.
        standing: the best agent beside others; None if the game pays no score.
        film: of the best agent.
        headings: of the table of agents.
        rows: of the table of agents, text cells.
        best: key of the best agent, whose row stands out.
        rounds: pictures over the agents and world models.
        studies: a picture each.
        agents: one by one.
        world_models: one by one.
    """

    name: str
    rules: str
    headline: str
    details: str
    standing: Picture | None
    film: Film
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: str
    rounds: Sequence[Picture]
    studies: Sequence[Picture]
    agents: Sequence[Part]
    world_models: Sequence[Part]


def write_report(out: Path, stages: Sequence[str], games: Sequence[GamePage]) -> None:
    """Write the page. The same input gives the same bytes.

    Args:
        out: the HTML file; folders are made.
        stages: of the pipeline, in the order in which they run.
        games: in the order of reading.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE).render(stages=stages, games=games)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8", newline="\n")
