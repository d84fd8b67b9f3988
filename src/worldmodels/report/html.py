"""One self-contained page: pictures as data URIs, no script, no network, no dates; light and dark, for phones too."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldmodels.report.style import WORLD_COLOURS


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        png: the PNG file's bytes.
        alt: what it shows, for readers who do not see it.
        caption: one sentence below it: how to read it.
        wide: scrolls sideways on a narrow screen instead of shrinking until nothing can be seen.
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
    """A video of the page.

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
class IterationPage:
    """What the page says of one iteration.

    Attributes:
        key: chain key, ``doom-1``.
        facts: name -> text: rules, backend, temperature, preset, episodes.
        pictures: in the order of reading.
        params: dotted name -> value.
        hashes: file -> hash.
    """

    key: str
    iteration: int
    facts: Mapping[str, str]
    pictures: Sequence[Picture]
    params: Mapping[str, Any] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvironmentPage:
    """What the page says of one environment: its scores as a picture, its best agent as a film, pictures over the iterations,
    then these one by one."""

    name: str
    scores: Picture
    film: Film
    rounds: Sequence[Picture]
    iterations: Sequence[IterationPage]


@dataclass(frozen=True)
class StudyPage:
    """What the page says of one study: its trials as a picture and as a table, one row a variant."""

    name: str
    picture: Picture
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(
    out: Path,
    stages: Sequence[str],
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    environments: Sequence[EnvironmentPage],
    studies: Sequence[StudyPage] = (),
) -> None:
    """Write the page. The same input gives the same bytes.

    Args:
        out: the HTML file; folders are made.
        stages: of the pipeline, in the order in which they run.
        headings: of the table of scores.
        rows: of the table of scores, text cells, one row an iteration.
        environments: in the order of reading.
        studies: in the order of reading.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_TEMPLATE).render(
        stages=stages, headings=headings, rows=rows, environments=environments, studies=studies, colours=WORLD_COLOURS
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8", newline="\n")


_TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>World Models: report</title>
<style>
:root { --ink: #1c2430; --faint: #5b6470; --paper: #ffffff; --card: #f5f7f9; --rule: #dde3e8; --link: #1f6fa8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaef; --faint: #a3adb8; --paper: #12161b; --card: #1b2128; --rule: #313a44; --link: #7db8e4; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.25rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0.5rem 0 0.25rem; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 0.75rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
p { max-width: 46rem; }
a { color: var(--link); }
nav a { display: inline-block; margin: 0 0.9rem 0.4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.6rem 0.4rem 0; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--faint); font-size: 0.9rem; }
td.number, th.number { text-align: right; padding-left: 0.6rem; }
dl { display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; margin: 0.25rem 0 1rem; color: var(--faint);
  font-size: 0.92rem; }
dl div { display: flex; gap: 0.4rem; }
dd { margin: 0; color: var(--ink); }
figure { margin: 0 0 1.5rem; }
figure .frame { background: #ffffff; border: 1px solid var(--rule); border-radius: 8px; padding: 0.5rem;
  overflow-x: auto; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure.scores { max-width: 46rem; }
figure.wide img { max-width: none; }
@media (min-width: 60rem) { figure.wide img { max-width: 100%; } }
figcaption { color: var(--faint); font-size: 0.9rem; margin-top: 0.4rem; max-width: 46rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 0 1.25rem; }
.figures .wide { grid-column: 1 / -1; }
.dot { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%; margin-right: 0.3em; }
details { background: var(--card); border-radius: 8px; padding: 0.5rem 0.9rem; margin-bottom: 0.75rem; }
summary { cursor: pointer; }
video { display: block; width: 100%; max-width: 48rem; border-radius: 8px; background: #000; }
.dag { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.5rem 0; counter-reset: stage; }
.dag li { display: flex; align-items: center; }
.dag li span { border: 1px solid var(--rule); border-radius: 8px; background: var(--card); padding: 0.15rem 0.7rem; }
.dag li:not(:last-child)::after { content: "→"; padding: 0 0.5rem; color: var(--faint); }
code { font: 0.87em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
</style>
</head>
<body>
{% macro table(headings, rows) %}
<div class="scroll">
<table>
<thead><tr>
{% for heading in headings %}
<th scope="col"{% if not loop.first and not loop.last %} class="number"{% endif %}>{{ heading }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr>
{% for cell in row %}
<td{% if not loop.first and not loop.last %} class="number"{% endif %}>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
<header>
<h1>World Models: report</h1>
<p>An agent that learns inside its own dream of a game, measured in the real game
(Ha &amp; Schmidhuber 2018). V turns a frame into a latent vector, M predicts the next one, C acts.
{% for world, colour in colours.items() %}
<span><span class="dot" style="background: {{ colour }}"></span>{{ world }}</span>{{ "," if not loop.last else "." }}
{% endfor %}
</p>
<nav aria-label="Iterations">
{% for environment in environments %}
{% for iteration in environment.iterations %}
<a href="#{{ iteration.key }}">{{ iteration.key }}</a>
{% endfor %}
{% endfor %}
{% for study in studies %}
<a href="#study-{{ study.name }}">study: {{ study.name }}</a>
{% endfor %}
</nav>
</header>
<main>
<section>
<h2>Scores</h2>
{{ table(headings, rows) }}
<p>Mean return of an episode and its standard error. Real and random are measured in the game itself, on the same test
episodes, which nothing was trained or selected on. A dream score far above the real one says that C exploits
mistakes of M. Scores compare only where the rules are the same.</p>
</section>
<section>
<h2>The pipeline</h2>
<ol class="dag">
{% for stage in stages %}
<li><span>{{ stage }}</span></li>
{% endfor %}
</ol>
<p>Iteration k collects with the agent of iteration k-1, then trains V, M and C again; iteration 0 is the random policy
(<code>initialise</code>). What each stage reads and writes is in <code>dvc.yaml</code>; <code>dvc dag</code> draws it.</p>
</section>
{% macro show(picture, kind="") %}
<figure class="{{ "wide" if picture.wide else kind }}">
<div class="frame"{% if picture.wide %} tabindex="0" role="group" aria-label="{{ picture.alt }}"{% endif %}>\
<img src="{{ picture.uri }}" alt="{{ picture.alt }}"></div>
<figcaption>{{ picture.caption }}</figcaption>
</figure>
{% endmacro %}
{% for environment in environments %}
<section>
<h2 id="{{ environment.name }}">{{ environment.name }}</h2>
{{ show(environment.scores, "scores") }}
<figure>
<video controls muted loop playsinline preload="metadata" \
poster="{{ environment.film.poster_uri }}" aria-label="{{ environment.film.caption }}" \
src="{{ environment.film.uri }}"></video>
<figcaption>{{ environment.film.caption }}</figcaption>
</figure>
<div class="figures">
{% for picture in environment.rounds %}
{{ show(picture) }}
{% endfor %}
</div>
{% for iteration in environment.iterations %}
<h3 id="{{ iteration.key }}">{{ iteration.key }}</h3>
<dl>
{% for name, text in iteration.facts.items() %}
<div><dt>{{ name }}</dt><dd>{{ text }}</dd></div>
{% endfor %}
</dl>
<div class="figures">
{% for picture in iteration.pictures %}
{{ show(picture) }}
{% endfor %}
</div>
{% if iteration.params %}
<details><summary>Parameters</summary><div class="scroll"><table><tbody>
{% for name, value in iteration.params.items() %}
<tr><td><code>{{ name }}</code></td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody></table></div></details>
{% endif %}
{% if iteration.hashes %}
<details><summary>Files and their hashes (md5, as in dvc.lock)</summary><div class="scroll"><table><tbody>
{% for name, value in iteration.hashes.items() %}
<tr><td><code>{{ name }}</code></td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody></table></div></details>
{% endif %}
{% endfor %}
</section>
{% endfor %}
{% for study in studies %}
<section>
<h2 id="study-{{ study.name }}">Study: {{ study.name }}</h2>
{{ show(study.picture, "scores") }}
{{ table(study.headings, study.rows) }}
</section>
{% endfor %}
</main>
</body>
</html>
"""
