"""The report: pictures, plots, the table, videos and the page, made from artifacts as a run leaves them."""

import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from lab import page_at
from PIL import Image
from written_run import curve_of, episode, returns, score_of, write_run, written_params

from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.games.make import references
from worldmodels.report import pictures
from worldmodels.report.build import build_report
from worldmodels.report.comparisons import agent_bars, search_rounds, standing_bars
from worldmodels.report.figures import calibration_bars, loss_curve, return_strip, search_curve
from worldmodels.report.style import BLIND_COLOUR, PAPER_COLOUR, PAPER_WHITE, WORLD_COLOURS, rgb
from worldmodels.report.table import HEADINGS, align, cells, read_scores, render, score_table, with_error
from worldmodels.report.verdict import best_agent, details, headline, rivals
from worldmodels.report.video import BAR, side_by_side, write_video
from worldmodels.rollout.scores import episodes_table
from worldmodels.storage.layout import AgentFiles

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
    return [read_scores(AgentFiles(key, project)) for key in PARAMS["agents"]]


def doom(project: Path) -> list[dict[str, Any]]:
    return [score for score in scores(project) if score["environment"] == "doom"]


def score(real: float, error: float = 10.0, **changes: Any) -> dict[str, Any]:
    """The scores of an agent of Take Cover with this mean and standard error."""
    plain = score_of("doom-9", PARAMS["agents"]["doom-1"], 500)
    return plain | {"real": plain["real"] | {"mean": real, "stderr": error}} | changes


def colour_pixels(image: np.ndarray, colour: str) -> int:
    return int((image == np.array(rgb(colour))).all(-1).sum())


class TestPictures:
    def test_a_grid_holds_every_frame_above_its_reconstruction_at_twice_the_size(self) -> None:
        frames, views = episode(5), episode(5, 1)
        image = pictures.reconstruction_grid(frames, views, columns=3)
        for index in (0, 2, 3, 4):
            above = find(image, frames[index])
            below = find(image, views[index])
            assert above[1] == below[1]
            assert below[0] - above[0] == 128 + pictures.GAP

    def test_a_grid_refuses_arrays_that_do_not_match(self) -> None:
        with pytest.raises(ValueError, match="must be alike"):
            pictures.reconstruction_grid(episode(3), episode(2))

    def test_a_filmstrip_shows_every_nth_frame_and_no_other(self) -> None:
        frames = episode(11)
        image = pictures.filmstrip({"dream": frames}, every=5)
        columns = [find(image, frames[step])[1] for step in (0, 5, 10)]
        assert columns == sorted(columns)
        assert len(set(np.diff(columns))) == 1
        assert not contains(image, frames[1])

    def test_a_row_of_the_filmstrip_has_its_worlds_colour(self) -> None:
        image = pictures.filmstrip({"reality": episode(3), "dream": episode(3)})
        assert colour_pixels(image, WORLD_COLOURS["real"])
        assert colour_pixels(image, WORLD_COLOURS["dream"])

    def test_a_filmstrip_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            pictures.filmstrip({"dream": episode(0)})
        with pytest.raises(ValueError, match="every = 0"):
            pictures.filmstrip({"dream": episode(1)}, every=0)

    def test_a_png_has_the_same_bytes_every_time_and_no_text_inside(self, tmp_path: Path) -> None:
        image = pictures.filmstrip({"dream": episode(4)}, note="temperature 1.15")
        pictures.write_png(tmp_path / "new" / "a.png", image)
        data = (tmp_path / "new" / "a.png").read_bytes()
        assert data == pictures.png_bytes(image.copy())
        assert not {b"tEXt", b"iTXt", b"tIME"} & {data[i : i + 4] for i in range(len(data))}
        assert (np.asarray(Image.open(BytesIO(data))) == image).all()


def find(image: np.ndarray, frame: np.ndarray) -> tuple[int, int]:
    """Return where a frame lies in an image, enlarged; StopIteration where it does not."""
    large = frame.repeat(pictures.SCALE, axis=0).repeat(pictures.SCALE, axis=1)
    corners = (image[: 1 - len(large), : 1 - len(large)] == large[0, 0]).all(-1)
    return next((y, x) for y, x in np.argwhere(corners).tolist() if (image[y : y + 128, x : x + 128] == large).all())


def contains(image: np.ndarray, frame: np.ndarray) -> bool:
    try:
        find(image, frame)
    except StopIteration:
        return False
    return True


class TestFigures:
    def test_the_best_agent_stands_beside_random_play_blind_play_and_the_paper(self) -> None:
        image = standing_bars(rivals(score(900)))
        colours = (WORLD_COLOURS["random"], BLIND_COLOUR, PAPER_COLOUR, WORLD_COLOURS["real"])
        areas = [colour_pixels(image, colour) for colour in colours]
        assert areas[0] < areas[1] < areas[3] < areas[2]  # about 210, 636, 900 and 1092
        alone = standing_bars(rivals(score(900, rules="takecover-skill5-limit2100", blind=None)))
        assert colour_pixels(alone, PAPER_COLOUR) == colour_pixels(alone, BLIND_COLOUR) == 0

    def test_scores_below_zero_can_be_drawn(self) -> None:
        plain = score(-40, blind=None)
        image = standing_bars(rivals(plain | {"random": plain["random"] | {"mean": -32.0}}))
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 500

    def test_bars_show_dream_and_game_and_the_papers_line_under_the_papers_rules_only(self, project: Path) -> None:
        image = agent_bars(doom(project))
        assert all(colour_pixels(image, WORLD_COLOURS[world]) > 100 for world in ("dream", "real"))
        assert colour_pixels(image, PAPER_COLOUR) > 20
        assert colour_pixels(image, BLIND_COLOUR) > 20
        other = agent_bars([each | {"rules": "takecover-skill5-limit2100"} for each in doom(project)])
        assert colour_pixels(other, PAPER_COLOUR) == 0

    def test_bars_leave_out_a_dream_that_there_is_not(self, project: Path) -> None:
        image = agent_bars([each for each in scores(project) if each["environment"] == "carracing"])
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 100
        assert colour_pixels(image, WORLD_COLOURS["dream"]) == 0

    def test_bars_of_two_games_are_refused(self, project: Path) -> None:
        with pytest.raises(ValueError, match="exactly one game"):
            agent_bars(scores(project))

    def test_a_search_is_drawn_phase_by_phase_in_the_colour_of_where_it_learned(self) -> None:
        searches = {name: curve_of({"controller": name}) for name in ("dream", "game")}
        images = {name: search_curve(curve) for name, curve in searches.items()}
        assert colour_pixels(images["dream"], WORLD_COLOURS["dream"]) > 50
        assert colour_pixels(images["dream"], WORLD_COLOURS["real"]) == 0
        assert all(colour_pixels(images["game"], WORLD_COLOURS[world]) > 50 for world in ("dream", "real"))

    def test_the_names_and_the_order_of_phases_are_the_users(self) -> None:
        curve = curve_of({"controller": "game"})
        renamed = curve.assign(phase=curve["phase"].replace({"fast": "real", "dreams": "ppo", "safe": "dream"}))
        assert search_curve(renamed).shape == search_curve(curve).shape
        assert (search_curve(renamed) != search_curve(curve)).any()

    def test_a_phase_that_is_paid_for_something_else_has_no_returns_and_shows_its_rewards(self) -> None:
        rewards = pd.DataFrame({"generation": range(9), "phase": "p", "world": "dream", "reward": np.linspace(-1, 0, 9)})
        rewards = rewards.assign(mean=np.nan, std=np.nan)
        chosen = pd.DataFrame({"generation": [-1, 8], "phase": "selection", "mean": [900.0, 990.0], "stderr": [40.0, 41.0]})
        image = search_curve(pd.concat([rewards, chosen]))
        flat = search_curve(pd.concat([rewards.assign(reward=-1.0), chosen]))
        assert (image != flat).any()

    def test_searches_show_where_they_learned_and_those_without_a_selection_the_dream_alone(self) -> None:
        curves = {name: curve_of({"controller": "dream"}) for name in ("doom-1", "doom-2")}
        image = search_rounds(curves)
        assert colour_pixels(image, WORLD_COLOURS["dream"]) > 50
        alone = search_rounds({key: curve[curve["phase"] != "selection"] for key, curve in curves.items()})
        assert colour_pixels(alone, WORLD_COLOURS["dream"]) > 50
        assert (image.shape != alone.shape) or (image != alone).any()

    def test_a_curve_of_one_point_and_one_with_nan_can_be_drawn(self) -> None:
        table = pd.DataFrame({"update": [0, 1], "split": ["train", "validation"], "loss": [np.nan, 3.0]})
        assert loss_curve("V", "loss", table).ndim == 3

    def test_blind_policies_stand_in_pairs_of_game_and_dream(self) -> None:
        names, real = ["random", "still"], {"real": [210, 300], "real_stderr": [9, 9]}
        table = pd.DataFrame({"policy": names, **real, "dream": [280, 1150], "dream_stderr": [9, 70]})
        image = calibration_bars(table)
        dreamt, lived = (colour_pixels(image, WORLD_COLOURS[world]) for world in ("dream", "real"))
        assert dreamt > lived > 100

    def test_a_strip_has_a_dot_for_every_world_played(self) -> None:
        table = pd.concat([episodes_table(returns(300, 5, 0), world) for world in ("real", "random")])
        image = return_strip(table)
        blue, grey, orange = (np.array(rgb(WORLD_COLOURS[world])) for world in ("real", "random", "dream"))
        hue = image.astype(int)
        assert (np.abs(hue - (0.55 * blue + 0.45 * 255)).max(-1) < 3).sum() > 50
        assert (np.abs(hue - (0.55 * grey + 0.45 * 255)).max(-1) < 3).sum() > 50
        assert (np.abs(hue - (0.55 * orange + 0.45 * 255)).max(-1) < 3).sum() == 0


class TestVerdict:
    def test_the_best_agent_is_of_the_chain_and_of_a_study_only_if_there_is_no_other(self, project: Path) -> None:
        assert best_agent(doom(project))["key"] == "doom-2-game"  # doom-2-seed has more
        studied = [score(300, study="s", key="a"), score(400, study="s", key="b")]
        assert best_agent(studied)["key"] == "b"

    @pytest.mark.parametrize(
        ("real", "said"),
        [
            (760, "doom-9 gets 760 ± 30 a game: better than the best policy that does not look, by 2.5 standard errors."),
            (
                716,
                "716 ± 30 a game: not clearly better than the best policy that does not look (1.6 standard errors above it).",
            ),
            (600, "not clearly better than the best policy that does not look (0.7 standard errors below it)."),
            (300, "doom-9 gets 300 ± 30 a game: worse than the best policy that does not look, by 6.7 standard errors."),
        ],
    )
    def test_a_sentence_says_by_how_many_standard_errors_an_agent_beats_blind_play(self, real: float, said: str) -> None:
        assert headline(score(real, 30)).endswith(said)

    def test_a_game_without_blind_policies_compares_with_random_play(self) -> None:
        assert "better than random play" in headline(score(900, blind=None))

    def test_a_game_that_pays_nothing_has_no_score_to_speak_of(self) -> None:
        nothing = {"mean": 0.0, "std": 0.0, "stderr": 0.0, "n": 20, "min": 0.0, "max": 0.0}
        told = headline(score(0, blind=None) | {"real": nothing, "random": nothing})
        assert told == "This game pays no score: the film shows what doom-9 does."

    def test_the_papers_agent_stands_under_the_papers_rules_only(self) -> None:
        assert "The paper's agent has 1092 ± 56: 3.4 standard errors higher." in details(score(900))
        assert "level with this one" in details(score(1092))
        assert "1.6" not in details(score(1192, rules="takecover-skill5-limit2100"))
        assert "paper" not in details(score(1192, rules="takecover-skill5-limit2100"))

    def test_scores_without_any_spread_still_compare(self) -> None:
        blind = {"policy": "hold", "mean": 320, "stderr": 0, "n": 2}
        assert "more than chance can explain" in headline(score(400, 0.0, blind=blind))
        assert "0.0 standard errors" in headline(score(320, 0.0, blind=blind))


class TestTable:
    def test_references_are_the_papers_figures(self) -> None:
        assert [(r.mean, r.std, r.n) for r in references("carracing-v3-limit1000")] == [(906, 21, 100)]
        assert [(r.mean, r.std) for r in references("takecover-skill4-limit2100")] == [(1092, 556), (210, 108)]
        assert references("takecover-skill5-limit2100") == ()

    def test_rows_are_ordered_by_environment_then_as_given_and_a_missing_dream_is_nan(self, project: Path) -> None:
        table = score_table(scores(project))
        assert table["key"].tolist() == KEYS
        assert np.isnan(table["dream"].iloc[-1])
        assert np.isnan(table["gap"].iloc[-1])
        assert table["gap"][1] == pytest.approx(table["dream"][1] - table["real"][1])
        assert table["controller_seed"].tolist() == [0, 0, 0, 1, 0]

    def test_the_text_is_aligned_and_carries_error_n_and_what_stands_beside(self, project: Path) -> None:
        lines = render(scores(project)).splitlines()
        assert len(lines) == 2 + 5
        assert lines[0].split("  ")[0] == "agent"
        first = scores(project)[0]["real"]
        assert f"{first['mean']:.0f} ± {first['stderr']:.0f}" in lines[2]
        assert re.search(r"\b20\b", lines[2])
        assert re.search(r"636 ± 40 +1092 ± 56$", lines[2])
        assert re.search(r"doom-2-seed +doom-2 +game +1 +seeds ", lines[5])
        assert re.search(r"carracing-1 +carracing-1 +dream +0 +- +- ", lines[6])
        assert {len(cell) for cell in cells(scores(project))} == {len(HEADINGS)}

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

    @pytest.mark.parametrize(
        ("value", "error", "text"),
        [(838.62, 52.6, "839 ± 53"), (-32.31, 1.94, "-32.3 ± 1.9"), (5.0, float("nan"), "5.0 ± ?")],
    )
    def test_decimals_follow_the_error(self, value: float, error: float, text: str) -> None:
        assert with_error(value, error) == text

    def test_columns_are_as_wide_as_their_widest_cell(self) -> None:
        assert align([("a", "b"), ("long", "1")], right=(1,)) == "a     b\n----  -\nlong  1"


class TestVideo:
    @pytest.mark.parametrize("suffix", [".mp4", ".gif"])
    def test_a_video_can_be_read_back_frame_by_frame_with_the_same_bytes_twice(self, tmp_path: Path, suffix: str) -> None:
        frames = episode(12)
        paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for path in paths:
            assert write_video(path, iter(frames), fps=25) == 12
        assert paths[0].read_bytes() == paths[1].read_bytes()
        with av.open(str(paths[0])) as container:
            shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(shown) == 12
        assert shown[0].shape == (256, 256, 3)
        for step in (0, 11):
            assert np.abs(shown[step][100, 4 * step + 20].astype(int) - (250, 200, 40)).max() < 30

    def test_an_mp4_is_h264_at_the_rate_asked_for(self, tmp_path: Path) -> None:
        write_video(tmp_path / "a.mp4", episode(5), fps=35)
        with av.open(str(tmp_path / "a.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, float(stream.average_rate)) == ("h264", 35.0)

    def test_views_stand_side_by_side_below_their_labels_and_one_that_ended_stays_darker_and_says_so(self) -> None:
        views = {"real": episode(4), "dream": episode(2, 1)}
        pictures = list(side_by_side(views))
        assert len(pictures) == 4
        assert all(picture.shape == (BAR + 256, 512, 3) for picture in pictures)
        for step in range(4):
            assert (pictures[step][BAR::4, :256:4] == views["real"][step]).all()
            expected = views["dream"][step] if step < 2 else views["dream"][1] // 3
            top = 0 if step < 2 else 8  # rows of the frame in which it is written
            assert (pictures[step][BAR::4, 256::4][top:] == expected[top:]).all()
        said = [colour_pixels(picture[BAR : BAR + 32, 256:], PAPER_WHITE) for picture in pictures]
        assert said[1] == 0 < said[2] == said[3]
        assert colour_pixels(pictures[0][:BAR, :256], WORLD_COLOURS["real"])
        assert colour_pixels(pictures[0][:BAR, 256:], WORLD_COLOURS["dream"])

    def test_a_wrong_suffix_is_refused_before_any_frame_is_played(self, tmp_path: Path) -> None:
        def never() -> Any:
            raise AssertionError("a frame was asked for")
            yield

        with pytest.raises(ParamsError, match=r"\.webm.*Use \.mp4 or \.gif"):
            write_video(tmp_path / "a.webm", never())

    def test_no_frames_are_an_error_and_leave_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no frame"):
            write_video(tmp_path / "a.mp4", [])
        assert not list(tmp_path.iterdir())


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
            page.wait_for_function(loaded, timeout=60_000)
            films = "[...document.querySelectorAll('video')].every((film) => film.readyState >= 1 && film.videoWidth > 0)"
            page.wait_for_function(films, timeout=60_000)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def test_the_first_screen_says_how_every_game_went_and_plays_the_films(self, reports: Path, browser: Any) -> None:
        with page_at(browser, (reports / "index.html").as_uri(), viewport={"width": 1400, "height": 850}) as page:
            page.wait_for_function("[...document.querySelectorAll('video')].every((film) => !film.paused)", timeout=60_000)
            for what in (".hero h2", ".hero video", ".hero img"):
                ends = page.evaluate(f"[...document.querySelectorAll('{what}')].map((e) => e.getBoundingClientRect().bottom)")
                assert len(ends) == 2
                assert max(ends) <= 850

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

    def test_pictures_over_the_run_say_what_was_collected_and_how_far_dreams_stay_real(self, reports: Path) -> None:
        page = (reports / "index.html").read_text()
        assert (
            "Mean return of an episode of what was collected. doom-1: random, walk 0 100, random, walk 0.9 200; "
            "doom-2: agent, strength 0 100, agent, strength 0.5 200" in page
        )
        assert "Reward per step of what was collected. carracing-1: random, walk 0 0.25, random, walk 0.9 0.5" in page
        assert "doom-1: 0.03 at 1, 0.25 at 10, 0.75 at 30; doom-2: " in page
        assert "on selection episodes: doom-1: 63; doom-2: 63; doom-2-game: 98" in page
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
        assert "doom, doom_joint: all agents" in text

    def test_artifacts_that_the_params_do_not_name_are_left_out(self, broken: Path) -> None:
        params = written_params()
        del params["agents"]["doom-2-game"], params["agents"]["doom-2-seed"]
        shutil.rmtree(broken / "artifacts/agents/doom-2-seed/film")
        build_report(broken, params)
        text = (broken / "reports/index.html").read_text()
        assert "doom-2-game" not in text
        assert "Studies" not in text
        assert "doom-2 plays an episode" in text

    def test_a_game_without_blind_policies_has_no_picture_of_them(self, broken: Path) -> None:
        (broken / "artifacts/world_models/carracing-1/calibration.csv").write_text("\n")
        build_report(broken, PARAMS)
        assert (broken / "reports/calibration-doom-1.png").exists()
        assert not (broken / "reports/calibration-carracing-1.png").exists()

    def test_scores_csv_reads_back_as_the_table(self, project: Path, reports: Path) -> None:
        table = pd.read_csv(reports / "scores.csv")
        assert table["key"].tolist() == KEYS
        expected = score_table(scores(project))["real"].to_numpy()
        assert table["real"].to_numpy() == pytest.approx(expected, rel=1e-5)

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
