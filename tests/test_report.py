"""The report: pictures, plots, the table, videos and the page, made from artifacts as a run leaves them."""

import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lab import page_at
from PIL import Image
from written_run import doom_score, write_run, written_params

from worldmodels.errors import ArtifactError
from worldmodels.games.make import reference
from worldmodels.report.build import build_report, collected, open_loop
from worldmodels.report.table import align, read_scores, render, table, with_error
from worldmodels.report.verdict import best_agent, headline
from worldmodels.storage.layout import AgentFiles, WorldModelFiles

PARAMS = written_params()
KEYS = ["doom-1", "doom-2", "doom-2-game", "doom-2-seed", "carracing-1"]
"""Agents in the order of the table."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of two games; tests only read it."""
    root = tmp_path_factory.mktemp("project")
    write_run(root)
    return root


@pytest.fixture(scope="module")
def reports(project: Path) -> Path:
    """The report of ``project``; tests only read it."""
    build_report(project, PARAMS)
    return project / "reports"


@pytest.fixture
def broken(project: Path, tmp_path: Path) -> Path:
    """A copy of the artifacts, to be damaged."""
    for folder in ("artifacts", "metrics"):
        shutil.copytree(project / folder, tmp_path / folder)
    return tmp_path


def scores(project: Path) -> list[dict[str, Any]]:
    return [read_scores(AgentFiles(key, project).scores) for key in PARAMS["agents"]]


def doom(project: Path) -> list[dict[str, Any]]:
    return [score for score in scores(project) if score["environment"] == "doom"]


class TestVerdict:
    def test_the_best_agent_is_of_the_chain_and_of_a_study_only_if_there_is_no_other(self, project: Path) -> None:
        assert best_agent(doom(project))["key"] == "doom-2-game"  # doom-2-seed has more
        studied = [doom_score(300, study="s", key="a"), doom_score(400, study="s", key="b")]
        assert best_agent(studied)["key"] == "b"

    @pytest.mark.parametrize(
        ("real", "said"),
        [
            (760, "doom-9 gets 760 ± 30 a game: better than the best blind policy (636 ± 40; by 2.5 standard errors),"),
            (716, "716 ± 30 a game: not clearly better than the best blind policy (636 ± 40; 1.6 standard errors above),"),
            (600, ": not clearly better than the best blind policy (636 ± 40; 0.7 standard errors below),"),
            (300, "doom-9 gets 300 ± 30 a game: worse than the best blind policy (636 ± 40; by 6.7 standard errors),"),
        ],
    )
    def test_a_sentence_says_by_how_many_standard_errors_an_agent_beats_blind_play(self, real: float, said: str) -> None:
        assert said in headline(doom_score(real, 30))

    def test_a_game_without_blind_policies_compares_with_the_paper_and_random_play(self) -> None:
        told = headline(doom_score(900, blind=None))
        assert re.search(r"worse than the paper's agent \(1,092 ± 56; by 3.4 standard errors\), better than random play", told)

    def test_a_game_that_pays_nothing_has_no_score_to_speak_of(self) -> None:
        nothing = {"mean": 0.0, "std": 0.0, "stderr": 0.0, "n": 20, "min": 0.0, "max": 0.0}
        told = headline(doom_score(0, blind=None) | {"real": nothing, "random": nothing})
        assert told == "This game pays no score: the film shows what doom-9 does."

    def test_the_papers_agent_stands_under_the_papers_rules_only(self) -> None:
        assert "worse than the paper's agent (1,092 ± 56; by 3.4)" in headline(doom_score(900))
        assert "level with the paper's agent (1,092 ± 56; 0.1 above)" in headline(doom_score(1100))
        assert "paper" not in headline(doom_score(1192, rules="takecover-skill5-limit2100"))

    def test_scores_without_any_spread_still_compare(self) -> None:
        blind = {"policy": "hold", "mean": 320, "stderr": 0, "n": 2}
        assert "by more than chance can explain" in headline(doom_score(400, 0.0, blind=blind))
        assert "0.0 standard errors above" in headline(doom_score(320, 0.0, blind=blind))


class TestTable:
    def test_references_are_the_papers_figures(self) -> None:
        assert reference("carracing-v3-limit1000") == (906, 21, 100)
        assert reference("takecover-skill4-limit2100") == (1092, 556, 100)
        assert reference("takecover-skill5-limit2100") is None

    def test_a_table_of_a_game_has_what_agents_stand_beside_and_then_the_agents_as_given(self, project: Path) -> None:
        lines = table(doom(project))
        assert {len(line) for line in lines} == {7}
        beside = ["random play", "best blind policy (sweep 70)", "the paper's agent"]
        assert [line[0] for line in lines] == ["Take Cover", *beside, *KEYS[:4]]
        assert lines[2][-2:] == ("636 ± 40", "20")
        assert lines[3][-2:] == ("1,092 ± 56", "100")
        assert lines[-1][1:4] == ("doom-2", "game, seed 1", "seeds")
        assert lines[-2][1:4] == ("doom-2", "game", "")

    def test_the_text_is_aligned_a_table_a_game_and_without_studies_has_no_column_for_them(self, project: Path) -> None:
        take_cover, racing = (text.splitlines() for text in render(scores(project)).split("\n\n"))
        assert len(take_cover) == 2 + 3 + 4
        real = scores(project)[0]["real"]
        assert re.search(rf"^doom-1 .* {with_error(real['mean'], real['stderr'])} +20$", take_cover[5])
        assert re.search(r"^CarRacing +world model +controller +in its dream +in the game +n$", racing[0])
        assert re.search(r"^carracing-1 +carracing-1 +dream +- +\d+ ± \d+ +20$", racing[-1])

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda s: s.pop("steps"), "`steps` is missing"),
            (lambda s: s["real"].pop("stderr"), "`real.stderr` is missing"),
            (lambda s: s.update(blind="none"), "`blind`"),
            (lambda s: s["dream"].update(mean="high"), "`dream.mean` = 'high'"),
        ],
    )
    def test_scores_that_lack_something_name_it_and_the_command(self, broken: Path, damage: Any, said: str) -> None:
        path = AgentFiles("doom-2-game", broken).scores
        content = json.loads(path.read_text())
        damage(content)
        path.write_text(json.dumps(content))
        with pytest.raises(ArtifactError, match=rf"doom-2-game.json is damaged.*{re.escape(said)}.*evaluate@doom-2-game"):
            read_scores(path)

    def test_columns_are_as_wide_as_their_widest_cell(self) -> None:
        assert align([("a", "b"), ("long", "1")], right=(1,)) == "a     b\n----  -\nlong  1"


class Page(HTMLParser):
    """Collects tags, and complains of what is opened and never closed."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class TestReport:
    def test_the_page_stands_alone(self, reports: Path) -> None:
        text = (reports / "index.html").read_text()
        page = Page()
        page.feed(text)
        assert page.open == []
        images = [attributes for tag, attributes in page.tags if tag == "img"]
        # Of each of two games the standing and four pictures over all; a study; of an agent two strips, returns and a curve;
        # of a world model two curves, calibration, grid and traversal.
        assert len(images) == 2 * 5 + 1 + 5 * 4 + 3 * 5
        assert all(len(image["alt"] or "") > 20 for image in images)
        assert all((image["src"] or "").startswith("data:image/png;base64,") for image in images)
        films = [attributes for tag, attributes in page.tags if tag == "video"]
        assert len(films) == 2
        assert all((film["src"] or "").startswith("data:video/mp4;base64,") for film in films)
        assert all({"autoplay", "muted", "loop", "playsinline", "controls"} <= set(film) for film in films)
        assert "doom-2-game plays an episode" in text  # the best of those that belong to no study
        assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
        assert "http" not in re.sub(r"base64,[\w+/=]+", "", text)
        assert "prefers-color-scheme: dark" in text
        assert 'name="viewport"' in text

    def test_what_is_for_the_specialist_is_folded_away_a_part_for_each_agent_and_world_model(self, reports: Path) -> None:
        text = (reports / "index.html").read_text()
        for key in [*PARAMS["agents"], *PARAMS["world_models"]]:
            parts = sum(key in PARAMS[kind] for kind in ("agents", "world_models"))
            assert text.count(f"<summary><strong>{key}</strong>") == parts
        assert "<details open" not in text
        assert text.count('<details class="game">') == 2 + 1
        folded = ("<table", "How it got there", "takecover-skill4-limit2100")
        assert all(text.index(each) > text.index("<details") for each in folded)
        page = Page()
        page.feed(text)
        identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(identities) == len(set(identities))
        links = {(attributes["href"] or "").removeprefix("#") for tag, attributes in page.tags if tag == "a"}
        assert links <= set(identities)

    @pytest.mark.parametrize("options", [{"viewport": {"width": 1400, "height": 850}},
                                         {"viewport": {"width": 380, "height": 780}, "color_scheme": "dark"}])  # fmt: skip
    def test_a_browser_shows_it_whole_without_scrolling_sideways(self, reports: Path, browser: Any, options: Any) -> None:
        with page_at(browser, (reports / "index.html").as_uri(), **options) as page:
            loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
            page.wait_for_function(loaded)
            films = "[...document.querySelectorAll('video')].every((film) => film.readyState >= 1 && film.videoWidth > 0)"
            page.wait_for_function(films)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def test_the_first_screen_says_how_every_game_went_and_plays_the_films(self, reports: Path, browser: Any) -> None:
        with page_at(browser, (reports / "index.html").as_uri(), viewport={"width": 1366, "height": 768}) as page:
            page.wait_for_function("[...document.querySelectorAll('video')].every((film) => !film.paused)")
            for what in (".hero h2", ".hero video", ".hero img"):
                ends = page.evaluate(f"[...document.querySelectorAll('{what}')].map((e) => e.getBoundingClientRect().bottom)")
                assert len(ends) == 2
                assert max(ends) <= 768
            assert page.evaluate("document.documentElement.scrollHeight") < 2 * 768

    def test_every_file_has_the_same_bytes_when_it_is_made_again(self, project: Path, broken: Path, reports: Path) -> None:
        build_report(broken, PARAMS)
        written = {path.name: path.read_bytes() for path in (broken / "reports").iterdir()}
        assert written == {path.name: path.read_bytes() for path in reports.iterdir()}
        assert {"index.html", "scores.csv", "standing-doom.png", "vision-doom-2.png", "returns-doom-2.png"} <= set(written)

    def test_the_page_has_scores_params_and_hashes_and_escapes_what_it_shows(self, project: Path, reports: Path) -> None:
        text = (reports / "index.html").read_text()
        best = next(each for each in scores(project) if each["key"] == "doom-2-game")
        assert with_error(best["real"]["mean"], best["real"]["stderr"]) in text
        assert "&lt;b&gt;skill&lt;/b&gt; &amp; 4" in text
        assert "<b>skill" not in text
        assert "doom.collect.note" in text
        assert "fast (cmaes in the game), then dreams (cmaes in the dream), then safe (value_gradient in the game)" in text
        assert hashlib.md5(b"doom-2 memory").hexdigest() in text

    def test_what_was_collected_is_a_reward_of_a_step_or_a_return_if_all_steps_pay_alike(self, project: Path) -> None:
        doom, racing = ({key: WorldModelFiles(key, project)} for key in ("doom-2", "carracing-1"))
        assert collected(doom) == (
            "mean return of an episode",
            {"doom-2": {"agent, strength 0": 100, "agent, strength 0.5": 200}},
        )
        assert collected(racing) == ("reward per step", {"carracing-1": {"random, walk 0": 0.25, "random, walk 0.9": 0.5}})

    def test_what_was_collected_is_a_share_of_the_map_if_the_game_has_one(self, broken: Path) -> None:
        files = WorldModelFiles("doom-2", broken)
        told = json.loads(files.data.read_text())
        for number, way in enumerate(told["policies"].values(), start=1):
            way["coverage"] = {"cells": number / 10}
        files.data.write_text(json.dumps(told))
        assert collected({"doom-2": files}) == (
            "share of the map in the mean episode",
            {"doom-2": {"agent, strength 0": 0.1, "agent, strength 0.5": 0.2}},
        )

    def test_how_far_dreams_stay_real_is_said_by_the_last_row_and_not_at_all_if_episodes_are_short(self, broken: Path) -> None:
        files = {key: WorldModelFiles(key, broken) for key in ("doom-1", "doom-2")}
        curve = pd.read_csv(files["doom-2"].memory_curve)
        curve.drop(columns=curve.filter(like="open_loop")).to_csv(files["doom-2"].memory_curve)
        assert open_loop(files) == {"doom-1": {1: 0.025, 10: 0.25, 30: 0.75}}

    def test_every_picture_over_the_run_is_drawn_for_every_game(self, reports: Path) -> None:
        named = ("standing", "agents", "collected", "search", "horizon")
        for name in (f"{figure}-{game}.png" for figure in named for game in ("doom", "carracing")):
            assert len(np.unique(np.asarray(Image.open(reports / name)).reshape(-1, 3), axis=0)) > 10

    def test_environments_with_the_same_rules_are_one_game(self, broken: Path) -> None:
        params = written_params()
        params["environments"].append("doom_joint")
        params["doom_joint"] = params["doom"]
        params["agents"]["doom-2-game"]["env"] = "doom_joint"
        build_report(broken, params)
        text = (broken / "reports/index.html").read_text()
        assert text.count('class="hero"') == 2
        assert text.count("Take Cover: all agents") == 1

    def test_one_game_by_two_sets_of_rules_has_the_names_of_its_sections(self, broken: Path) -> None:
        params = written_params()
        params["environments"].append("doom_short")
        params["doom_short"] = {**params["doom"], "game": {**params["doom"]["game"], "limit": 700}}
        params["agents"]["doom-2-game"]["env"] = "doom_short"
        build_report(broken, params)
        text = (broken / "reports/index.html").read_text()
        assert text.count("Take Cover, doom: all agents") == text.count("Take Cover, doom_short: all agents") == 1

    def test_artifacts_that_the_params_do_not_name_are_left_out(self, broken: Path) -> None:
        params = written_params()
        del params["agents"]["doom-2-game"], params["agents"]["doom-2-seed"]
        shutil.rmtree(broken / "artifacts/agents/doom-2-seed/film")
        build_report(broken, params)
        text = (broken / "reports/index.html").read_text()
        assert "doom-2-game" not in text
        assert "Studies" not in text
        assert "doom-2 plays an episode" in text

    def test_a_calibration_without_rows_has_no_picture(self, broken: Path) -> None:
        path = broken / "artifacts/world_models/carracing-1/calibration.csv"
        path.write_text(path.read_text().partition("\n")[0] + "\n")
        build_report(broken, PARAMS)
        assert (broken / "reports/calibration-doom-1.png").exists()
        assert not (broken / "reports/calibration-carracing-1.png").exists()

    def test_scores_csv_has_a_row_an_agent_with_the_names_of_its_metrics(self, project: Path, reports: Path) -> None:
        table = pd.read_csv(reports / "scores.csv").set_index("key")
        assert table.index.tolist() == KEYS
        for score in scores(project):
            assert table.loc[score["key"], "real.mean"] == pytest.approx(score["real"]["mean"], rel=1e-5)
        assert np.isnan(table.loc["carracing-1", "dream.mean"])
        assert np.isnan(table.loc["carracing-1", "gap"])

    @pytest.mark.parametrize(
        ("name", "command"),
        [
            ("metrics/doom-2.json", "dvc repro evaluate@doom-2"),
            ("artifacts/agents/doom-2-game/film/agent.mp4", "dvc repro film@doom-2-game"),
            ("artifacts/agents/doom-2-game/controller.csv", "dvc repro controller@doom-2-game"),
            ("artifacts/agents/doom-2-game/agent", "dvc repro controller@doom-2-game"),
            ("artifacts/world_models/doom-2/memory.csv", "dvc repro memory@doom-2"),
            ("artifacts/world_models/doom-2/calibration.csv", "dvc repro calibrate@doom-2"),
            ("artifacts/world_models/doom-2/vision.safetensors", "dvc repro vision@doom-2"),
        ],
    )
    def test_a_missing_artifact_names_the_command_that_makes_it(self, broken: Path, name: str, command: str) -> None:
        path = broken / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(ArtifactError, match=f"{path.name} does not exist.*{command}"):
            build_report(broken, PARAMS)

    @pytest.mark.parametrize(
        "name",
        [
            "metrics/doom-2.json",
            "artifacts/agents/doom-2/returns.parquet",
            "artifacts/world_models/doom-2/vision.csv",
            "artifacts/agents/doom-2-game/film/agent.mp4",
        ],
    )
    def test_a_truncated_artifact_is_called_damaged(self, broken: Path, name: str) -> None:
        path = broken / name
        path.write_bytes(b"" if path.suffix == ".csv" else path.read_bytes()[:40])
        with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
            build_report(broken, PARAMS)
