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

from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.games.make import references
from worldmodels.report import figures, pictures
from worldmodels.report.build import build_report
from worldmodels.report.comparisons import score_bars, search_rounds
from worldmodels.report.figures import learning_curves, return_strip
from worldmodels.report.style import PAPER_COLOUR, PAPER_WHITE, WORLD_COLOURS, rgb
from worldmodels.report.table import align, render, score_table, with_error
from worldmodels.report.video import BAR, side_by_side, write_video
from worldmodels.rollout.scores import episodes_table, summarise
from worldmodels.shapes import Returns

KEYS = ["doom-1", "doom-2", "carracing-1"]


def episode(steps: int, seed: int = 0) -> np.ndarray:
    """Frames (steps, 64, 64, 3) of a bright square that moves over noise."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 90, (steps, 64, 64, 3), dtype=np.uint8)
    for step in range(steps):
        frames[step, 20:30, step % 50 : step % 50 + 10] = (250, 200, 40)
    return frames


def returns(mean: float, episodes: int, seed: int) -> Returns:
    random = np.random.default_rng(seed)
    total = np.sign(mean) * random.gamma(4, abs(mean) / 4, (1, episodes))
    length = np.maximum(1, np.abs(total)).astype(np.int64)
    return Returns(total, length, np.ones((1, episodes), bool), np.arange(episodes))


CALIBRATION = pd.DataFrame(
    {
        "policy": ["random", "sweep 70"],
        "real": [210, 636],
        "real_stderr": [9, 40],
        "dream": [280, 1150],
        "dream_stderr": [9, 70],
    }
)


def write_artifacts(root: Path, key: str, real: float, dream: float | None) -> None:
    """Write what the report reads of an iteration, in the shapes of a real run."""
    environment, number = key.split("-")
    folder = root / "artifacts" / key
    folder.mkdir(parents=True)
    played = {"real": returns(real, 20, 1), "random": returns(210 if environment == "doom" else -32, 20, 2)}
    if dream is not None:
        played["dream"] = returns(dream, 30, 3)
    summary = {world: summarise(outcome) for world, outcome in played.items()}
    score = {
        "key": key,
        "environment": environment,
        "iteration": int(number),
        "preset": "quick",
        "rules": "takecover-skill4-limit2100" if environment == "doom" else "carracing-v3-limit1000",
        "backend": "vizdoom-1.3.2" if environment == "doom" else "gymnasium-1.4.0",
        "temperature": 1.15,
        "real": summary["real"],
        "dream": summary.get("dream"),
        "baseline": summary["random"],
        "blind": {"policy": "sweep 70", "mean": 636.0, "stderr": 40.0, "n": 20} if environment == "doom" else None,
        "gap": None if dream is None else summary["dream"]["mean"] - summary["real"]["mean"],
    }
    (folder / "scores.json").write_text(json.dumps(score))
    pd.concat([episodes_table(outcome, world) for world, outcome in played.items()]).to_parquet(folder / "returns.parquet")
    updates = np.arange(0, 200, 10)
    points = [(u, split, 40 + 900 * np.exp(-u / 20)) for u in updates for split in ("train", "validation")]
    losses = pd.DataFrame(points, columns=["update", "split", "loss"])
    losses.to_csv(folder / "vision.csv", index=False)
    ahead = {f"open_loop_{k}": np.where(losses["split"] == "validation", k / 40, np.nan) for k in (1, 10, 30)}
    losses.assign(**ahead).to_csv(folder / "memory.csv", index=False)
    who = ["random, walk 0", "random, walk 0.9"] if number == "1" else [f"{environment}-1, strength {s}" for s in (0, 0.5)]
    policies = {
        name: {
            "episodes": 10,
            "mean_return": 100.0 * place,
            "reward_per_step": 4 - 0.01 * place if environment == "doom" else 0.25 * place,
        }
        for place, name in enumerate(who, start=1)
    }
    (folder / "data.json").write_text(json.dumps({"policies": policies}))
    rows: list[tuple[Any, ...]] = [(g, "dream", 20.0 * g, 12.0 * g, 3.0, 0.1, 100) for g in range(10)]
    rows += [(g, "real", 10.0 * g, 6.0 * g, 2.0, 0.1, 100) for g in range(10, 15)]
    rows = [(*row, np.nan) for row in rows]
    rows += [(g, "selection", np.nan, 7.0 * g, 20.0, np.nan, np.nan, 5.0) for g in (-1, 4, 9, 14)]
    columns = ["generation", "phase", "best", "mean", "std", "sigma", "steps", "stderr"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "controller.csv", index=False)
    pictures.write_png(folder / "calibration.png", figures.calibration_bars(CALIBRATION))
    pictures.write_png(folder / "vision.png", pictures.reconstruction_grid(episode(6), episode(6, 1)))
    pictures.write_png(folder / "traversal.png", pictures.filmstrip({"z3": episode(9)}, corner="std"))
    pictures.write_png(folder / "temperatures.png", pictures.filmstrip({"dream, tau 1": episode(30)}, every=5))
    write_video(folder / "agent.mp4", side_by_side({"real": episode(6), "dream": episode(4)}), scale=1)
    pictures.write_png(folder / "dream.png", pictures.filmstrip({"reality": episode(30), "dream": episode(20)}, every=5))
    for name in ("vision", "memory", "controller"):
        (folder / f"{name}.safetensors").write_bytes(f"{key} {name}".encode())


PARAMS: dict[str, Any] = {"preset": "quick", "seed": 0, "doom": {"environment": {"kind": "<b>skill</b> & 4"}}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts of three iterations; tests only read it."""
    root = tmp_path_factory.mktemp("project")
    write_artifacts(root, "doom-1", 500, 1300)
    write_artifacts(root, "doom-2", 800, 1300)
    write_artifacts(root, "carracing-1", 300, None)
    return root


@pytest.fixture(scope="module")
def reports(project: Path) -> Path:
    """The report of ``project``; tests only read it."""
    build_report(project, KEYS, PARAMS)
    return project / "reports"


@pytest.fixture
def broken(project: Path, tmp_path: Path) -> Path:
    """A copy of one iteration, to be damaged."""
    shutil.copytree(project / "artifacts/doom-2", tmp_path / "artifacts/doom-2")
    return tmp_path


def scores(project: Path) -> list[dict[str, Any]]:
    return [json.loads((project / "artifacts" / key / "scores.json").read_text()) for key in KEYS]


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
    def test_bars_show_the_three_worlds_and_the_papers_line_under_the_papers_rules_only(self, project: Path) -> None:
        doom = scores(project)[:2]
        image = score_bars(doom)
        assert all(colour_pixels(image, colour) > 100 for colour in WORLD_COLOURS.values())
        assert colour_pixels(image, PAPER_COLOUR) > 20
        other = score_bars([score | {"rules": "takecover-skill5-limit2100"} for score in doom])
        assert colour_pixels(other, PAPER_COLOUR) == 0

    def test_bars_leave_out_a_dream_that_there_is_not(self, project: Path) -> None:
        image = score_bars(scores(project)[2:])
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 100
        assert colour_pixels(image, WORLD_COLOURS["dream"]) == 0

    def test_bars_of_two_games_are_refused(self, project: Path) -> None:
        with pytest.raises(ValueError, match="exactly one environment"):
            score_bars(scores(project))

    def test_the_controllers_curve_shows_dream_and_real_phases_in_their_colours(self, project: Path) -> None:
        table = pd.read_csv(project / "artifacts/doom-1/controller.csv")
        image = learning_curves({"controller": table})["controller"]
        assert colour_pixels(image, WORLD_COLOURS["dream"]) > 50
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 50
        alone = learning_curves({"controller": table[table["phase"] == "dream"]})["controller"]
        assert colour_pixels(alone, WORLD_COLOURS["real"]) == 0

    def test_ppo_that_is_paid_for_risk_has_no_returns_and_shows_its_rewards(self) -> None:
        rewards = pd.DataFrame(
            {"generation": range(9), "phase": "ppo", "reward": np.linspace(-1, 0, 9), "mean": np.nan, "std": np.nan}
        )
        chosen = pd.DataFrame({"generation": [-1, 8], "phase": "selection", "mean": [900.0, 990.0], "stderr": [40.0, 41.0]})
        image = learning_curves({"controller": pd.concat([rewards, chosen])})["controller"]
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 50
        flat = learning_curves({"controller": pd.concat([rewards.assign(reward=-1.0), chosen])})["controller"]
        assert (image != flat).any()

    def test_rounds_show_the_dream_and_the_game_and_searches_without_a_selection_the_dream_alone(self, project: Path) -> None:
        curves = {key: pd.read_csv(project / f"artifacts/{key}/controller.csv") for key in ("doom-1", "doom-2")}
        image = search_rounds(curves)
        assert colour_pixels(image, WORLD_COLOURS["dream"]) > 50
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 50
        alone = search_rounds({key: curve[curve["phase"] != "selection"] for key, curve in curves.items()})
        assert colour_pixels(alone, WORLD_COLOURS["dream"]) > 50
        assert colour_pixels(alone, WORLD_COLOURS["real"]) == 0

    def test_a_curve_of_one_point_and_one_with_nan_can_be_drawn(self) -> None:
        table = pd.DataFrame({"update": [0, 1], "split": ["train", "validation"], "loss": [np.nan, 3.0]})
        assert learning_curves({"vision": table})["vision"].ndim == 3
        assert learning_curves({"vision": table.iloc[:0]}) == {}

    def test_a_strip_has_a_dot_for_every_world_played(self) -> None:
        table = pd.concat([episodes_table(returns(300, 5, 0), world) for world in ("real", "random")])
        image = return_strip(table)
        blue, grey, orange = (np.array(rgb(WORLD_COLOURS[world])) for world in ("real", "random", "dream"))
        hue = image.astype(int)
        assert (np.abs(hue - (0.55 * blue + 0.45 * 255)).max(-1) < 3).sum() > 50
        assert (np.abs(hue - (0.55 * grey + 0.45 * 255)).max(-1) < 3).sum() > 50
        assert (np.abs(hue - (0.55 * orange + 0.45 * 255)).max(-1) < 3).sum() == 0

    def test_references_are_the_papers_figures(self) -> None:
        assert [(r.mean, r.std, r.n) for r in references("carracing-v3-limit1000")] == [(906, 21, 100)]
        assert [(r.mean, r.std) for r in references("takecover-skill4-limit2100")] == [(1092, 556), (210, 108)]
        assert references("takecover-skill5-limit2100") == ()


class TestTable:
    def test_rows_are_ordered_by_environment_then_iteration_and_a_missing_dream_is_nan(self, project: Path) -> None:
        table = score_table(scores(project)[::-1])
        assert table["key"].tolist() == ["carracing-1", "doom-1", "doom-2"]
        assert np.isnan(table["dream"][0])
        assert np.isnan(table["gap"][0])
        assert table["gap"][1] == pytest.approx(table["dream"][1] - table["real"][1])

    def test_the_text_is_aligned_and_carries_error_n_and_rules(self, project: Path) -> None:
        lines = render(scores(project)).splitlines()
        assert len(lines) == 2 + 3
        starts = {line.index("takecover") for line in lines if "takecover" in line}
        assert starts == {lines[0].index("rules")}
        first = scores(project)[0]["real"]
        assert f"{first['mean']:.0f} ± {first['stderr']:.0f}" in lines[2]
        assert re.search(r"\b20\b", lines[2])
        assert "636 ± 40" in lines[2]
        assert re.search(r"carracing +1 +- ", lines[4])

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
        # Bars and three pictures over the iterations, of two games; of each iteration: two strips, returns, three curves,
        # calibration, grid, traversal.
        assert len(images) == 2 * 4 + 3 * 9
        assert all(len(image["alt"] or "") > 20 for image in images)
        assert all((image["src"] or "").startswith("data:image/png;base64,") for image in images)
        films = [attributes for tag, attributes in page.tags if tag == "video"]
        assert len(films) == 2
        assert all((film["src"] or "").startswith("data:video/mp4;base64,") for film in films)
        assert "doom-2: the agent in the real game" in text  # the best of the two
        assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
        assert "http" not in re.sub(r"base64,[\w+/=]+", "", text)
        assert "prefers-color-scheme: dark" in text
        assert 'name="viewport"' in text

    @pytest.mark.parametrize("options", [{"viewport": {"width": 1280, "height": 800}},
                                         {"viewport": {"width": 380, "height": 780}, "color_scheme": "dark"}])  # fmt: skip
    def test_a_browser_shows_it_whole_without_scrolling_sideways(self, reports: Path, browser: Any, options: Any) -> None:
        with page_at(browser, (reports / "index.html").as_uri(), **options) as page:
            loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
            page.wait_for_function(loaded, timeout=60_000)
            films = "[...document.querySelectorAll('video')].every((film) => film.readyState >= 1 && film.videoWidth > 0)"
            page.wait_for_function(films, timeout=60_000)
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            for summary in page.query_selector_all("summary"):
                summary.click()
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def test_every_file_has_the_same_bytes_when_it_is_made_again(self, broken: Path) -> None:
        build_report(broken, ["doom-2"], PARAMS)
        written = {path.name: path.read_bytes() for path in (broken / "reports").iterdir()}
        build_report(broken, ["doom-2"], PARAMS)
        assert written == {path.name: path.read_bytes() for path in (broken / "reports").iterdir()}
        assert {"index.html", "scores.csv", "scores-doom.png", "vision-doom-2.png", "returns-doom-2.png"} <= set(written)

    def test_the_page_has_scores_params_and_hashes_and_escapes_what_it_shows(self, project: Path, reports: Path) -> None:
        text = (reports / "index.html").read_text()
        score = scores(project)[1]
        assert with_error(score["real"]["mean"], score["real"]["stderr"]) in text
        assert "&lt;b&gt;skill&lt;/b&gt; &amp; 4" in text
        assert "<b>skill" not in text
        assert "doom.environment.kind" in text
        assert hashlib.md5(b"doom-2 memory").hexdigest() in text

    def test_pictures_over_the_iterations_say_what_was_collected_and_how_far_dreams_stay_real(self, reports: Path) -> None:
        page = (reports / "index.html").read_text()
        assert (
            "Mean return of an episode of what was collected. doom-1: random, walk 0 100, random, walk 0.9 200; "
            "doom-2: agent, strength 0 100, agent, strength 0.5 200" in page
        )
        assert "Reward per step of what was collected. carracing-1: random, walk 0 0.25, random, walk 0.9 0.5" in page
        assert "doom-1: 0.03 at 1, 0.25 at 10, 0.75 at 30; doom-2: " in page
        assert "on selection episodes: doom-1: 98; doom-2: 98" in page
        for name in (f"{figure}-{game}.png" for figure in ("collected", "search", "horizon") for game in ("doom", "carracing")):
            assert len(np.unique(np.asarray(Image.open(reports / name)).reshape(-1, 3), axis=0)) > 10

    def test_scores_csv_reads_back_as_the_table(self, project: Path, reports: Path) -> None:
        table = pd.read_csv(reports / "scores.csv")
        assert table["key"].tolist() == KEYS
        assert table["real"].to_numpy() == pytest.approx([score["real"]["mean"] for score in scores(project)], rel=1e-5)

    @pytest.mark.parametrize(
        ("name", "command"),
        [
            ("scores.json", "dvc repro evaluate@doom-2"),
            ("memory.csv", "dvc repro memory@doom-2"),
            ("controller.csv", "dvc repro controller@doom-2"),
            ("vision.safetensors", "dvc repro vision@doom-2"),
        ],
    )
    def test_a_missing_artifact_names_the_command_that_makes_it(self, broken: Path, name: str, command: str) -> None:
        (broken / "artifacts/doom-2" / name).unlink()
        with pytest.raises(ArtifactError, match=f"{name} does not exist.*{command}"):
            build_report(broken, ["doom-2"], {})

    @pytest.mark.parametrize("name", ["scores.json", "returns.parquet", "vision.csv"])
    def test_a_truncated_artifact_is_called_damaged(self, broken: Path, name: str) -> None:
        path = broken / "artifacts/doom-2" / name
        path.write_bytes(b"" if name == "vision.csv" else path.read_bytes()[:40])
        with pytest.raises(ArtifactError, match=f"{name} is damaged"):
            build_report(broken, ["doom-2"], {})
