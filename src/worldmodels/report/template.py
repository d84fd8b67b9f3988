"""The page of the report as a Jinja template; ``html`` fills it in."""

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>World Models: how well it went</title>
<style>
:root { --ink: #1c2430; --faint: #5b6470; --paper: #ffffff; --card: #f5f7f9; --rule: #dde3e8; --link: #1f6fa8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaef; --faint: #a3adb8; --paper: #12161b; --card: #1b2128; --rule: #313a44; --link: #7db8e4; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 0.75rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.1rem; margin: 0 0 0.25rem; }
h1 small { font-weight: 400; color: var(--faint); font-size: 0.92rem; margin-left: 0.6rem; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 0.75rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h2 small { font-weight: 400; color: var(--faint); font-size: 0.9rem; margin-left: 0.6rem; }
h3 { font-size: 1.1rem; margin: 2rem 0 0.6rem; }
p { max-width: 50rem; }
a { color: var(--link); }
.hero { padding: 0.35rem 0 0.6rem; border-bottom: 1px solid var(--rule); }
.hero h2 { border: 0; margin: 0.25rem 0 0.5rem; padding: 0; font-size: 1.2rem; line-height: 1.3; }
.hero h2 span { color: var(--faint); font-weight: 400; margin-right: 0.5rem; }
.hero p { margin: 0.4rem 0 0; color: var(--faint); font-size: 0.9rem; max-width: none; }
.hero figure { margin: 0; }
.hero + section:not(.hero) > h2 { border: 0; }
.stage { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.5rem 1rem; align-items: start; }
@media (min-width: 60rem) { .stage { grid-template-columns: minmax(0, 1.32fr) minmax(0, 1fr); } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.95rem; }
th, td { padding: 0.35rem 0.6rem 0.35rem 0; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--faint); font-size: 0.9rem; }
td.number, th.number { text-align: right; padding-left: 0.6rem; }
tr.best td { font-weight: 600; }
dl { display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; margin: 0.75rem 0 1rem; color: var(--faint); font-size: 0.92rem; }
dl div { display: flex; gap: 0.4rem; }
dd { margin: 0; color: var(--ink); }
figure { margin: 0 0 1.5rem; }
figure .frame { background: #ffffff; border: 1px solid var(--rule); border-radius: 8px; padding: 0.5rem; overflow-x: auto; }
.hero figure .frame { padding: 0.25rem 0.5rem; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure.wide img { max-width: none; }
@media (min-width: 60rem) { figure.wide img { max-width: 100%; } }
figcaption { color: var(--faint); font-size: 0.9rem; margin-top: 0.4rem; max-width: 50rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 0 1.25rem;
  align-items: start; }
.figures .wide { grid-column: 1 / -1; }
details { background: var(--card); border-radius: 8px; padding: 0.5rem 0.9rem; margin-bottom: 0.6rem; }
details details { border: 1px solid var(--rule); }
summary { cursor: pointer; }
summary span { color: var(--faint); margin-left: 0.6rem; font-size: 0.92rem; }
video { display: block; width: 100%; border-radius: 8px; background: #000; }
.dag { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.5rem 0; }
.dag li { display: flex; align-items: center; }
.dag li span { border: 1px solid var(--rule); border-radius: 8px; background: var(--paper); padding: 0.1rem 0.7rem; }
.dag li:not(:last-child)::after { content: "→"; padding: 0 0.5rem; color: var(--faint); }
code { font: 0.87em ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
</style>
</head>
<body>
{% macro show(picture) %}
<figure{% if picture.wide %} class="wide"{% endif %}>
<div class="frame"{% if picture.wide %} tabindex="0" role="group" aria-label="{{ picture.alt }}"{% endif %}>\
<img src="{{ picture.uri }}" alt="{{ picture.alt }}"></div>
<figcaption>{{ picture.caption }}</figcaption>
</figure>
{% endmacro %}
{% macro pairs(name, values) %}
{% if values %}
<details><summary>{{ name }}</summary><div class="scroll"><table><tbody>
{% for key, value in values.items() %}
<tr><td><code>{{ key }}</code></td><td><code>{{ value }}</code></td></tr>
{% endfor %}
</tbody></table></div></details>
{% endif %}
{% endmacro %}
{% macro folded(kind, part) %}
<details><summary><strong>{{ part.key }}</strong><span>{{ part.about }}</span></summary>
<dl id="{{ kind }}-{{ part.key }}">
{% for name, text in part.facts.items() %}
<div><dt>{{ name }}</dt><dd>{{ text }}</dd></div>
{% endfor %}
</dl>
<div class="figures">
{% for picture in part.pictures %}
{{ show(picture) }}
{% endfor %}
</div>
{{ pairs("Parameters", part.params) }}
{{ pairs("Files and their hashes (md5)", part.hashes) }}
</details>
{% endmacro %}
<header>
<h1>World Models <small>An agent learns a model of a game from play, then learns to play inside that model, as in a dream.
(Ha &amp; Schmidhuber 2018)</small></h1>
</header>
<main>
{% for game in games %}
<section class="hero">
<h2><span>{{ game.name }}</span>{{ game.headline }}</h2>
<div class="stage">
<figure>
<video autoplay controls muted loop playsinline preload="auto" \
poster="{{ game.film.poster_uri }}" aria-label="{{ game.film.caption }}" \
src="{{ game.film.uri }}"></video>
<figcaption>{{ game.film.caption }}</figcaption>
</figure>
<div>
{% if game.standing %}
<figure><div class="frame"><img src="{{ game.standing.uri }}" alt="{{ game.standing.alt }}"></div></figure>
{% endif %}
<p>{{ game.details }} <a href="#game-{{ loop.index }}">All agents of {{ game.name }}</a></p>
</div>
</div>
</section>
{% endfor %}
{% for game in games %}
<section>
<h2 id="game-{{ loop.index }}">{{ game.name }}: all agents <small>{{ game.rules }}</small></h2>
<div class="scroll">
<table>
<thead><tr>
{% for heading in game.headings %}
<th scope="col"{% if loop.index > 5 %} class="number"{% endif %}>{{ heading }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in game.rows %}
<tr{% if row[0] == game.best %} class="best"{% endif %}>
{% for cell in row %}
<td{% if loop.index > 5 %} class="number"{% endif %}>{% if loop.first %}<a href="#agent-{{ cell }}">{{ cell }}</a>\
{% else %}{{ cell }}{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p>Mean return of an episode and its standard error. Real, random and blind are measured in the game itself, on the same n
test episodes. A dream score far above the real one says that the agent uses mistakes of its world model.</p>
<h3>How it got there</h3>
<div class="figures">
{% for picture in game.rounds %}
{{ show(picture) }}
{% endfor %}
</div>
{% if game.studies %}
<h3>Studies</h3>
<div class="figures">
{% for picture in game.studies %}
{{ show(picture) }}
{% endfor %}
</div>
{% endif %}
<h3>Agents one by one</h3>
{% for part in game.agents %}
{{ folded("agent", part) }}
{% endfor %}
<h3>World models one by one</h3>
{% for part in game.world_models %}
{{ folded("world-model", part) }}
{% endfor %}
</section>
{% endfor %}
<section>
<h2>What these words mean</h2>
<p>V sees: it turns a frame into a short vector z. M remembers: from z and the action it predicts the next z, the reward and
the end. V and M together are a <em>world model</em>: it can go on by itself, which is the <em>dream</em>. C acts on what V sees
and M remembers. V, M and C together are an <em>agent</em>. <em>Random</em> play takes any action; a <em>blind</em> policy
follows a fixed rhythm. Neither looks at the game.</p>
<ol class="dag">
{% for stage in stages %}
<li><span>{{ stage }}</span></li>
{% endfor %}
</ol>
<p>The agent of one iteration plays to collect episodes for the next world model; the first ones come from random play
(<code>initialise</code>). What each stage reads and writes is in <code>dvc.yaml</code>; <code>dvc dag</code> draws it.</p>
</section>
</main>
</body>
</html>
"""
