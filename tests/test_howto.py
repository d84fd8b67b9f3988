"""The pages of docs/howto, and the first commands of README, run as they stand in a project of their own.

A page is run from top to bottom. A comment above a block says what it is, if it is no command:

    <!-- file PATH -->            the block is this file
    <!-- into params.yaml -->     the block is laid over this file
    <!-- slow -->                 the block takes more than 20 seconds: `make test-slow` runs it
    <!-- not run: REASON -->      the block cannot run here

The project has the smallest params there are, which stand in `presets/quick.yaml` too; so `doom-1` is its only agent, and
computed already. Numbers of a page that would take long are made smaller as `SMALLER` says.
"""

import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from lab import run
from tiny import ROOT

PAGES = sorted((ROOT / "docs/howto").glob("*.md"))
SMALLER = {
    "add-a-game.md": {
        "first_episodes: 400": "first_episodes: 40",
        "updates: 800": "updates: 3",
        "updates: 1000": "updates: 3",
        "generations: 20": "generations: 2",
        "every: 5": "every: 1",
        "episodes: 100, dreams: 32": "episodes: 5, dreams: 4",
    },
    "add-a-phase.md": {"generations: 100": "generations: 3", "every: 10": "every: 1", "episodes: 192": "episodes: 2"},
    "learn-from-recordings.md": {"--episodes 100": "--episodes 6", "--episodes 50": "--episodes 1"},
    "learn-in-a-dream.md": {
        "num_envs=64": "num_envs=2",
        '"n_steps": 128, "batch_size": 1024': '"n_steps": 16, "batch_size": 32',
        "500_000": "32",
        "range(100)": "range(2)",
    },
}
"""Page -> what takes long in it, and what the test has in its place."""
README = {"doom-2": "doom-1", "episodes 10": "episodes 1", "episodes=10": "episodes=1"}
"""The same for README, whose agents are those of the preset quick."""
ELSEWHERE = {
    "make": "the Makefile's targets make a virtual environment; .ci/run runs them",
    "wm play": "a server: tests/test_play.py",
}
"""What lines of README begin with that are not run here, and why."""
LONG = ("wm evaluate", "wm doctor")
"""What lines of README begin with that take more than 20 seconds, with what else the test runs."""
BLOCK = re.compile(
    r"(?:^ *<!-- (?P<how>.*?) -->\n)?^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    how: str  # what the comment above it says
    text: str


def blocks(page: Path, smaller: dict[str, str]) -> list[Block]:
    text = page.read_text()
    for old, new in smaller.items():
        assert old in text, f"{page.name} has no {old!r} any more: mend SMALLER"
        text = text.replace(old, new)
    return [Block(each["language"], each["how"] or "", textwrap.dedent(each["text"])) for each in BLOCK.finditer(text)]


def laid_over(there: object, block: object) -> object:
    """Return params with those of a block laid over them. What has a `kind` takes the place of what was there."""
    if not isinstance(there, dict) or not isinstance(block, dict) or "kind" in block:
        return block
    return there | {key: laid_over(there.get(key), value) for key, value in block.items()}


def perform(block: Block, project: Path) -> None:
    kind, _, place = block.how.partition(" ")
    if kind == "file":
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).write_text(block.text)
    elif kind == "into":
        told = laid_over(yaml.safe_load((project / place).read_text()), yaml.safe_load(block.text))
        (project / place).write_text(yaml.safe_dump(told, sort_keys=False))
    elif block.language == "sh":
        run(project, "bash", "-euo", "pipefail", "-c", block.text)
    elif block.language == "python":
        run(project, sys.executable, "-c", block.text)
    else:
        raise AssertionError(f"what is this block? Say it in a comment above it:\n{block.text}")


@pytest.fixture
def project(iteration, tmp_path):
    folder = Path(shutil.copytree(iteration, tmp_path / "project"))
    shutil.copy(folder / "params.yaml", folder / "presets/quick.yaml")
    for name in ("pretrained", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def follow(page: Path, project: Path, *, slow: bool) -> None:
    for block in blocks(page, SMALLER.get(page.name, {})):
        assert re.fullmatch(r"|slow|(file|into) \S+|not run: .{10,}", block.how), block.how
        if not block.how.startswith("not run") and (slow or block.how != "slow"):
            perform(block, project)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_works(page, project):
    follow(page, project, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [each for each in PAGES if "<!-- slow -->" in each.read_text()], ids=lambda page: page.stem)
def test_what_a_page_says_works_to_the_end(page, project):
    follow(page, project, slow=True)


def commands() -> list[str]:
    """Return the lines of README's shell blocks that are run here."""
    found = [block for block in blocks(ROOT / "README.md", README) if block.language == "sh"]
    lines = [line for block in found for line in block.text.splitlines() if line.strip()]
    assert all(any(line.startswith(begin) for line in lines) for begin in (*ELSEWHERE, *LONG))
    return [line for line in lines if not line.startswith(tuple(ELSEWHERE))]


def test_the_quick_commands_of_readme_work(project):
    quick = [line for line in commands() if not line.startswith(LONG)]
    assert len(quick) >= 3
    run(project, "bash", "-euo", "pipefail", "-c", "\n".join(quick))
    assert (project / "dream.gif").stat().st_size > 1000


@pytest.mark.slow
def test_the_commands_and_the_python_of_readme_work(project):
    run(project, "bash", "-euo", "pipefail", "-c", "\n".join(commands()))
    assert all((project / name).stat().st_size > 1000 for name in ("agent.mp4", "lap.mp4", "dream.gif"))
    (code,) = [block for block in blocks(ROOT / "README.md", README) if block.language == "python"]
    perform(code, project)
