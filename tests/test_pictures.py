"""Pictures, plots, films and what an agent is shown by, made of frames and tables."""

from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from written_run import curve_of, doom_score, episode, returns, score_of, written_params

from worldmodels.agent.agent import Agent
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.errors import ParamsError
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.report import pictures
from worldmodels.report.comparisons import agent_bars, search_rounds, standing_bars
from worldmodels.report.demonstration import Demonstration, demonstrate, draw
from worldmodels.report.figures import calibration_bars, loss_curve, return_strip, search_curve
from worldmodels.report.style import BLIND_COLOUR, PAPER_COLOUR, PAPER_WHITE, WORLD_COLOURS, rgb
from worldmodels.report.table import rivals
from worldmodels.report.video import BAR, side_by_side, write_video
from worldmodels.rollout.scores import episodes_table
from worldmodels.storage.agents import AgentCard
from worldmodels.storage.layout import AgentFiles
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import Starts

AGENTS = written_params()["agents"]
DOOM = [score_of(key, AGENTS[key], real, 1300) for key, real in (("doom-1", 500), ("doom-2", 800))]
RACING = score_of("carracing-1", AGENTS["carracing-1"], 300)


def colour_pixels(image: np.ndarray, colour: str) -> int:
    return int((image == np.array(rgb(colour))).all(-1).sum())


class TestPictures:
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
        image = standing_bars(rivals(doom_score(900)))
        colours = (WORLD_COLOURS["random"], BLIND_COLOUR, PAPER_COLOUR, WORLD_COLOURS["real"])
        areas = [colour_pixels(image, colour) for colour in colours]
        assert areas[0] < areas[1] < areas[3] < areas[2]  # about 210, 636, 900 and 1092
        alone = standing_bars(rivals(doom_score(900, rules="takecover-skill5-limit2100", blind=None)))
        assert colour_pixels(alone, PAPER_COLOUR) == colour_pixels(alone, BLIND_COLOUR) == 0

    def test_scores_below_zero_can_be_drawn(self) -> None:
        plain = doom_score(-40, blind=None)
        image = standing_bars(rivals(plain | {"random": plain["random"] | {"mean": -32.0}}))
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 500

    def test_bars_show_dream_and_game_and_the_papers_line_under_the_papers_rules_only(self) -> None:
        image = agent_bars(DOOM)
        assert all(colour_pixels(image, WORLD_COLOURS[world]) > 100 for world in ("dream", "real"))
        assert colour_pixels(image, PAPER_COLOUR) > 20
        assert colour_pixels(image, BLIND_COLOUR) > 20
        other = agent_bars([each | {"rules": "takecover-skill5-limit2100"} for each in DOOM])
        assert colour_pixels(other, PAPER_COLOUR) == 0

    def test_bars_leave_out_a_dream_that_there_is_not(self) -> None:
        image = agent_bars([RACING])
        assert colour_pixels(image, WORLD_COLOURS["real"]) > 100
        assert colour_pixels(image, WORLD_COLOURS["dream"]) == 0

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

    def test_an_mp4_of_few_frames_a_second_fades_from_one_to_the_next_and_lasts_as_long(self, tmp_path: Path) -> None:
        frames = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (40, 80, 200)])
        assert write_video(tmp_path / "a.mp4", frames, fps=8.75) == 12
        with av.open(str(tmp_path / "a.mp4")) as container:
            stream = container.streams.video[0]
            shown = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
            assert float(stream.average_rate) == 35
            assert float(stream.duration * stream.time_base) == pytest.approx(3 / 8.75)
        assert shown == pytest.approx([40, 50, 60, 70, 80, 110, 140, 170, 200, 200, 200, 200], abs=2)

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
            write_video(tmp_path / "a.webm", never(), fps=35)

    def test_no_frames_are_an_error_and_leave_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no frame"):
            write_video(tmp_path / "a.mp4", [], fps=35)
        assert not list(tmp_path.iterdir())


class TestDemonstration:
    """Of an agent that has learned nothing, in a game that has neither a score nor a goal."""

    @pytest.fixture(scope="class")
    def agent(self) -> Agent:
        torch.manual_seed(0)
        game = {"kind": "gym", "id": "Pendulum-v1", "reward": "none", "limit": 20}
        shape = ControllerConfig(features="zh")
        vision, memory = Vision(VisionConfig(latent=4)), LSTMConfig(hidden=8, done=False).build(4, 1)
        for parameter in memory.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        card = AgentCard(kind="world-model", environment="pendulum", game=game, controller=shape.model_dump())
        return Agent(card, vision, memory, torch.randn(parameter_count(shape, 12, 1)), Starts(*torch.zeros(2, 1, 4)))

    @pytest.fixture(scope="class")
    def seen(self, agent: Agent) -> Demonstration:
        return demonstrate(agent, agent.game.make(scoring=True), seed=3, temperature=1.0)

    def test_it_is_as_long_as_the_episode_and_the_dreams_begin_where_v_saw_it_begin(self, seen: Demonstration) -> None:
        views = seen.views
        assert [len(frames) for frames in views.values()] == [21, 21, 21]
        assert list(seen.at) == [0.1, 0.5, 1.0, 1.15, 1.3]
        assert len(seen.dreamt) == 21
        assert len(seen.traversal) == 4
        firsts = [views["dream, same actions"][0], seen.dreamt[0], *(frames[0] for frames in seen.at.values())]
        assert all((first == firsts[0]).all() for first in firsts)

    def test_it_is_drawn_into_the_agents_folder_with_the_same_bytes_twice(self, seen: Demonstration, tmp_path: Path) -> None:
        drawn = []
        for name in ("a", "b"):
            files = AgentFiles("pendulum-1", tmp_path / name)
            draw(seen, files, 30.0)
            paths = [files.reconstructions, files.filmstrip, files.traversal, files.temperatures, files.video]
            drawn.append([path.read_bytes() for path in paths])
            assert sorted(files.film.iterdir()) == sorted(paths)
        assert drawn[0] == drawn[1]
        with av.open(str(files.video)) as container:
            assert len(list(container.decode(video=0))) == 21
