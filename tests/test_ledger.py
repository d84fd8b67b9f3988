"""The ledger of scores, and the pages that are made of it."""

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from worldmodels.cli.ledger import (
    COLUMNS,
    HEADLINES,
    LEDGER,
    PAGE,
    PICTURE,
    README,
    add,
    headline_table,
    read_headlines,
    read_ledger,
    results,
    run_table,
    with_table,
    write,
)
from worldmodels.errors import ArtifactError
from worldmodels.storage.files import write_table

ROOT = Path(__file__).parents[1]
SCORE = {
    "key": "doom-2-game", "environment": "doom", "agent": "doom-2-game", "preset": "laptop", "study": "none",
    "rules": "takecover-skill4-limit2100", "backend": "vizdoom-1.3.2", "controller_seed": 3, "seed": 1, "block": "test",
    "real": {"mean": 1100.0, "std": 500.0, "stderr": 50.0, "n": 100}, "dream": {"mean": 1300.5},
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose only run has one score."""
    write_metrics(tmp_path, SCORE)
    return tmp_path


def write_metrics(root: Path, score: dict[str, object]) -> None:
    (root / "metrics").mkdir(exist_ok=True)
    (root / "metrics" / f"{score['key']}.json").write_text(json.dumps(score))


def pages(root: Path) -> dict[Path, str]:
    """Return what the ledger of the repository makes of the pages of a project."""
    ledger = read_ledger(ROOT / LEDGER)
    short = headline_table(ledger, read_headlines(ROOT / HEADLINES))
    texts = {README: short, PAGE: results(ledger, short)}
    return {page: with_table(page, (root / page).read_text(), text) for page, text in texts.items()}


def test_the_page_of_results_and_the_table_in_readme_are_what_the_ledger_gives() -> None:
    for page, text in pages(ROOT).items():
        assert (ROOT / page).read_text() == text, "run `wm ledger write`"
    assert (ROOT / PICTURE).exists()


def test_every_picture_and_page_that_a_page_links_to_is_in_the_repository() -> None:
    pages = [ROOT / README, ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").glob("*.md")]
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


def test_every_agent_of_the_ledger_stands_on_the_page() -> None:
    page = (ROOT / PAGE).read_text()
    assert all(f"| {row['run']} | {row['agent']} |" in page for _, row in read_ledger(ROOT / LEDGER).iterrows())


def test_writing_the_pages_changes_only_what_lies_between_the_markers(tmp_path: Path) -> None:
    for folder in ("results", "docs"):
        (tmp_path / folder).mkdir()
    for name in (LEDGER, HEADLINES):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for page in (README, PAGE):
        (tmp_path / page).write_text("# Title\n\n<!-- ledger -->\nreplaced\n<!-- /ledger -->\n\nthe end\n")
    write(tmp_path)
    for page, text in pages(tmp_path).items():
        assert (tmp_path / page).read_text() == text
        assert text.startswith("# Title\n\n<!-- ledger -->\n")
        assert text.endswith("|\n<!-- /ledger -->\n\nthe end\n")
        assert "replaced" not in text
        assert "| Take Cover | random play |" in text
    assert Image.open(tmp_path / PICTURE).width > 1500  # a panel for each of two games


@pytest.mark.parametrize(
    "page", ["no markers", "<!-- /ledger --> <!-- ledger -->", "<!-- ledger --><!-- ledger --><!-- /ledger -->"]
)
def test_a_page_without_one_pair_of_markers_is_refused(page: str) -> None:
    with pytest.raises(ArtifactError, match=r"README.md must have one <!-- ledger -->"):
        with_table(README, page, "table")


def test_a_score_becomes_a_row(project: Path) -> None:
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    said = add(project, "mine", hardware="AMD EPYC, 2 cores")
    assert "has the rows of mine: doom-2-game." in said
    (row,) = read_ledger(project / LEDGER).to_dict("records")
    assert row == {
        "run": "mine", "preset": "laptop", "game": "take_cover", "agent": "doom-2-game", "chain_seed": 1, "controller_seed": 3,
        "block": "test", "n": 100, "mean": 1100.0, "std": 500.0, "stderr": 50.0, "dream": 1300.5, "minutes": row["minutes"],
        "hardware": "AMD EPYC, 2 cores", "commit": row["commit"],
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{7,}", row["commit"])


def test_a_score_without_dream_minutes_and_hardware_leaves_cells_empty(project: Path) -> None:
    write_metrics(project, SCORE | {"dream": None})
    add(project, "mine")
    (row,) = read_ledger(project / LEDGER).to_dict("records")
    assert pd.isna(row["dream"])
    assert pd.isna(row["minutes"])
    assert (row["preset"], row["hardware"], row["commit"]) == ("laptop", "", "")


@pytest.mark.parametrize("preset", ["laptop", "laptop+ablation", "laptop+hybrid+ablation"])
def test_an_agent_of_a_study_has_this_study_alone_in_its_preset(project: Path, preset: str) -> None:
    write_metrics(project, SCORE | {"preset": preset, "study": "ablation"})
    add(project, "mine")
    assert read_ledger(project / LEDGER)["preset"].tolist() == ["laptop+ablation"]


def test_policies_that_do_not_look_are_rows_too(project: Path) -> None:
    folder = project / "artifacts" / "agents" / "doom-0"
    folder.mkdir(parents=True)
    played = {"random": [110.0, 310.0], "sweep 100": [740.0, 740.0]}
    rows = [(world, seed, total, 9, True) for world, totals in played.items() for seed, total in enumerate(totals)]
    write_table(folder / "returns.parquet", pd.DataFrame(rows, columns=["world", "seed", "total", "length", "terminal"]))
    write_metrics(
        project, {name: SCORE[name] for name in ("environment", "preset", "rules", "block", "real")} | {"key": "doom-0"}
    )
    add(project, "mine")
    ledger = read_ledger(project / LEDGER)
    means = dict(zip(ledger["agent"], ledger["mean"], strict=True))
    assert means == {"random": 210, "blind: sweep 100": 740, "doom-2-game": 1100}
    assert ledger["game"].unique().tolist() == ["take_cover"]


def test_adding_a_run_again_replaces_its_rows_and_keeps_the_others(project: Path) -> None:
    add(project, "first")
    add(project, "mine")
    write_metrics(project, SCORE | {"real": {"mean": 900.0, "std": 500.0, "stderr": 50.0, "n": 100}})
    add(project, "mine")
    ledger = read_ledger(project / LEDGER)
    assert dict(zip(ledger["run"], ledger["mean"], strict=True)) == {"first": 1100.0, "mine": 900.0}


def test_a_project_without_scores_is_told_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="dvc repro evaluate"):
        add(tmp_path, "mine")


def test_a_file_that_is_no_score_is_named(project: Path) -> None:
    write_metrics(project, {"key": "doom-2-game"})
    with pytest.raises(ArtifactError, match=r"doom-2-game.json is no score .*dvc repro evaluate@doom-2-game"):
        add(project, "mine")


def ledger_of(path: Path, *rows: str) -> pd.DataFrame:
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return read_ledger(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("r,laptop,carracing,a,0,0,test,100,900,20,9,,,,", r"line 2: stderr is 9.0; std / sqrt\(n\) is 2.00"),
        ("r,laptop,carracing,,0,0,test,100,900,20,2,,,,", "line 2: agent must be given"),
        ("r,laptop,carracing,a,0,0,test,100,,20,2,,,,", "line 2: mean must be given"),
        ("r,laptop,carracing,a,0,0,test,100,many,20,2,,,,", "column mean"),
        ("r,laptop,carracing,a,0,0,test,1.5,900,20,2,,,,", "column n"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        ledger_of(tmp_path / "ledger.csv", row)


def test_two_rows_of_one_agent_with_the_same_seeds_are_refused(tmp_path: Path) -> None:
    row = "r,laptop,carracing,a,0,0,test,100,900,20,2,,,,"
    with pytest.raises(ArtifactError, match="two rows of a in r"):
        ledger_of(tmp_path / "ledger.csv", row, row)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text("run,agent\n")
    with pytest.raises(ArtifactError, match="they must be run, preset"):
        read_ledger(path)


def test_three_seeds_have_the_error_over_the_seeds_and_one_seed_the_error_over_its_episodes(tmp_path: Path) -> None:
    rows = [f"r,laptop,carracing,three,0,{seed},test,100,{mean},20,2,,,," for seed, mean in enumerate((880, 900, 920))]
    table = run_table(ledger_of(tmp_path / "ledger.csv", *rows, "r,laptop,carracing,one,0,0,test,100,900,20,2,,50,,"))
    assert "| r | three | laptop | test | 900 ± 12 | 20 | 100 | 3: 880, 900, 920 |" in table  # 20 / sqrt(3)
    assert "| r | one | laptop | test | 900.0 ± 2.0 | 20 | 100 |  |  | 50 |" in table


def test_chain_seeds_of_one_run_have_an_interval_as_wide_as_they_differ(tmp_path: Path) -> None:
    rows = [f"r,laptop,carracing,{{}},{seed},0,test,100,{mean},20,2,,,," for seed, mean in enumerate((800, 900, 1000))]
    of_two_runs = [*rows[:2], rows[2].replace("r,", "other,", 1)]
    written = [
        *(row.format("a") for row in rows),
        *(row.format("b") for row in of_two_runs),
        *(row.format("c") for row in rows[:2]),
    ]
    ledger = ledger_of(tmp_path / "ledger.csv", *written)
    cells = re.findall(r"3: 800, 900, 1,000; 95 %: (\d+) to (\S+) \|", run_table(ledger))
    ((low, high),) = ((float(bound.replace(",", "")) for bound in found) for found in cells)
    assert 800 < low < 830  # all three draws are of the lowest seed in 1 of 27 cases
    assert 970 < high < 1000
    assert "2: 800, 900 |" in run_table(ledger)
    headlines = pd.DataFrame([("carracing", word, run, word) for word, run in (("a", "r"), ("b", "r"), ("b", "other"))])
    short = headline_table(ledger, headlines.set_axis(["game", "words", "run", "agent"], axis=1))
    assert re.search(r"\| a \| .*95 %: .* \|\n\| CarRacing \| b \| 900 ± 58 \| 100 \| 3: 800, 900, 1,000 \|", short)


def test_a_ledger_that_lacks_a_row_of_the_table_in_readme_is_refused(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path / "ledger.csv", "r,laptop,carracing,a,0,0,test,100,900,20,2,,,,")
    with pytest.raises(ArtifactError, match="which README shows"):
        headline_table(ledger, read_headlines(ROOT / HEADLINES))
