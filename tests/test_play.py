"""`wm play` and `wm export web`: the dream as it should be, sockets of several visitors, and real pages in Chromium."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
import uvicorn
from lab import answers, free_port, page_at, serving
from test_cli import make_agent

from worldmodels.agent.agent import load_agent, save_agent
from worldmodels.errors import EnvironmentFault, ParamsError, WorldModelsError
from worldmodels.games import doom, doom_engine
from worldmodels.games.doom import DoomConfig
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.features import select_features
from worldmodels.play.server import Stage, make_app
from worldmodels.play.session import Session, widest_latents
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes

TAU = 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("agents") / "doom-1"
    make_agent(place)
    agent = load_agent(place)
    for index, model in enumerate((agent.vision, agent.memory)):
        initialise(model, torch.Generator().manual_seed(index))
    with torch.no_grad():
        agent.memory.input_weight *= 3
        agent.memory.head.bias[-1] -= 6  # its dreams last
    save_agent(place, agent)
    return place


@pytest.fixture(scope="module")
def agent(folder):
    return load_agent(folder)


class TestSession:
    def test_left_alone_it_is_the_dream_of_the_same_seed(self, agent):
        kept = []
        run_episodes(agent.dream_world(temperature=TAU, limit=200), agent.policy(), [5], recorder=EpisodeRecorder(kept.append))
        session = Session(agent, temperature=TAU, seed=5)
        while not session.now.ended and session.now.step < 200:
            session.step()
        assert session.now.step == len(kept[0].actions)
        assert session.now.ended == kept[0].terminal
        assert session.now.total == kept[0].rewards.sum()
        frames = session.frames(session.moments)
        assert np.abs(frames[: len(kept[0].frames)].astype(int) - kept[0].frames[: len(frames)]).max() <= 1

    def test_it_is_over_where_the_dream_has_earned_the_goal_of_the_game(self, agent):
        game = agent.card.game | {"frame_skip": 4, "goal": 22.0}  # a step is worth 4
        keen = replace(agent, card=agent.card.model_copy(update={"game": game}))
        returns = run_episodes(keen.dream_world(temperature=TAU), keen.policy(), [5])
        session = Session(keen, temperature=TAU, seed=5)
        while not session.now.ended:
            session.step()
        assert (session.now.step, session.now.total) == (returns.length[0, 0], returns.total[0, 0]) == (6, 24.0)

    def test_taken_back_it_goes_on_as_before_and_bent_it_does_not(self, agent):
        session = Session(agent, temperature=TAU, seed=1)
        first = [session.step().z for _ in range(12)]
        session.back(7)
        assert session.now.step == 5
        assert all(torch.equal(session.step().z, z) for z in first[5:])
        session.back(7)
        session.set_latent(2, 3.0)
        assert session.now.z[0, 2] == 3.0
        assert not torch.equal(session.step().z, first[5])

    def test_a_temperature_widens_it(self, agent):
        def spread(temperature):
            session = Session(agent, temperature=temperature, seed=3)
            return torch.cat([session.step([0.0]).z for _ in range(30) if not session.now.ended]).std(0).mean()

        assert spread(4.0) > 1.5 * spread(0.2)

    def test_a_recording_is_dreamt_again_bit_by_bit_also_where_it_was_bent(self, agent):
        session = Session(agent, temperature=TAU, seed=9)
        for step in range(15):
            if step == 4:
                session.set_temperature(1.5)
            if step == 8:
                session.set_latent(0, -1.0)
            session.step([1.0] if step % 2 else None)
        again = Session(agent, temperature=1.0)
        again.replay(json.loads(json.dumps(session.recording())))
        assert len(again.moments) == len(session.moments)
        assert all(torch.equal(one.z, other.z) for one, other in zip(again.moments, session.moments, strict=True))

    @pytest.mark.parametrize("recording", [{}, [], None, {"seed": 1, "first": [0.0], "actions": [], "changes": {}},
                                           {"seed": 1, "first": [0.0] * 4, "actions": [[1, 2]], "changes": {}}])  # fmt: skip
    def test_what_is_no_recording_is_refused(self, agent, recording):
        with pytest.raises(ParamsError):
            Session(agent, temperature=1.0).replay(recording)

    @pytest.mark.parametrize(
        "harm",
        [
            {"first": [1e300] * 4},
            {"first": [1e5] * 4},
            {"first": [float("nan")] * 4},
            {"first": [10**400] * 4},
            {"seed": 10**400},
            {"seed": -1},
            {"seed": float("inf")},
            {"seed": None},
            {"actions": [[float("nan")]]},
            {"actions": [[1.0]] * 5001},
            {"actions": 3},
            {"changes": {"1": {"wake": [[0.0] * 4, [0.0]]}}},
            {"changes": {"1": {"wake": [[0.0] * 3, [0.0] * 16]}}},
            {"changes": {"1": {"wake": [[1e30] * 4, [0.0] * 16]}}},
            {"changes": {"1": {"temperature": float("nan")}}},
            {"changes": {"1": {"latents": {"0": 1e300}}}},
            {"changes": {"1": {"latents": {"x": 1}}}},
            {"changes": [1]},
        ],
        ids=str,
    )
    def test_a_recording_with_one_wrong_value_is_refused_and_the_session_stays_as_it_was(self, agent, harm):
        session = Session(agent, temperature=TAU, seed=9)
        for _ in range(3):
            session.step([1.0])
        session.set_latent(0, 1.0)
        recording, moments = session.recording(), list(session.moments)
        with pytest.raises(ParamsError) as refused:
            session.replay(recording | harm)
        assert len(str(refused.value)) < 400
        assert session.moments == moments
        assert session.recording() == recording
        assert session.temperature == TAU

    def test_a_dream_that_leaves_the_numbers_ends(self, agent):
        session = Session(agent, temperature=TAU, seed=9)
        session.step()
        session.moments[-1] = replace(session.now, z=session.now.z * float("inf"))
        assert session.step().ended
        assert session.now.step == 1

    def test_the_real_game_is_played_beside_and_can_be_woken_to(self, agent):
        with closing(DoomConfig(limit=25).make()) as game, closing(DoomConfig(limit=25).make()) as other:
            session = Session(agent, temperature=1.0, seed=4)
            session.put_beside(game)
            expected = other.start([4])[0]
            assert (session.now.real == expected).all()
            for _ in range(6):
                session.step([1.0])
                expected = other.step(np.ones((1, 1), np.float32)).frames[0]
            assert (session.now.real == expected).all()
            seen, state = session.now.seen
            session.wake()
            assert torch.equal(session.now.z, seen)
            assert torch.equal(session.now.state, state)
            session.back(2)
            with pytest.raises(ParamsError, match="no game"):
                session.wake()

    def test_a_game_beside_that_fails_leaves_and_the_dream_goes_on_alone(self, agent, monkeypatch):
        monkeypatch.setattr(doom, "REPLACEMENTS", 0)
        alone, session = (Session(agent, temperature=1.0, seed=4) for _ in range(2))
        game = DoomConfig(limit=25).make()
        session.put_beside(game)
        alone.put_beside(other := DoomConfig(limit=25).make())
        for each in (alone, session):
            each.step([1.0])
        doom_engine.kill(game._engines[0])
        for each in (alone, session):
            each.step([1.0])
        other.close()
        assert torch.equal(session.now.z, alone.now.z)
        assert (session.game, session.now.real, session.now.seen) == (None, None, None)
        assert "the dream goes on alone: " in session.trouble
        assert "the ViZDoom engine of lane 0 (seed 4) died" in session.trouble
        assert session.step().step == 3 or session.now.ended
        broken = DoomConfig(limit=25).make()
        broken.start = lambda seeds: (_ for _ in ()).throw(EnvironmentFault("it does not start"))
        session.put_beside(broken)
        assert "it does not start" in session.trouble
        assert (session.game, session.now.step) == (None, 0)

    @pytest.mark.parametrize(
        "bad",
        [
            lambda s: s.step([1.0, 2.0]),
            lambda s: s.step([float("nan")]),
            lambda s: s.set_latent(4, 0.0),
            lambda s: s.set_latent(0, 1e9),
            lambda s: s.set_temperature(0.0),
            lambda s: s.wake(),
        ],
    )
    def test_what_cannot_be_is_refused_with_what_is_allowed(self, agent, bad):
        with pytest.raises(ParamsError):
            bad(Session(agent, temperature=1.0))

    def test_latents_are_sorted_by_how_much_they_move(self, agent):
        latents = widest_latents(agent)
        assert sorted(index for index, _, _ in latents) == list(range(4))
        assert [std for _, _, std in latents] == sorted((std for _, _, std in latents), reverse=True)


# The server


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "worldmodels.cli.main", "play", str(folder), "--port", str(port)]
    with serving(command, lambda: answers(f"{address}/about"), tmp_path_factory.mktemp("play") / "log"):
        yield address


@pytest.fixture(scope="module")
def choosing(tmp_path_factory):
    """The address of an agent of a game whose actions are one choice among four."""
    place, port = tmp_path_factory.mktemp("agents") / "basic-1", free_port()
    make_agent(place, {"kind": "vizdoom", "scenario": "basic", "limit": 300, "frame_skip": 4}, action=4)
    agent = load_agent(place)
    initialise(agent.memory, torch.Generator().manual_seed(1))
    agent.memory.choices = (4,)
    with torch.no_grad():
        agent.memory.input_weight *= 3
        agent.memory.head.bias[-1] -= 6  # its dreams last
    save_agent(place, agent)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "worldmodels.cli.main", "play", str(place), "--port", str(port)]
    with serving(command, lambda: answers(f"{address}/about"), tmp_path_factory.mktemp("play") / "log"):
        yield address


def log_of(factory):
    """Return what the server has written."""
    return max(factory.getbasetemp().glob("play*/log"), key=lambda path: path.stat().st_mtime).read_text()


class Visit:
    """A visitor's socket."""

    def __init__(self, address, visitor="", origin=None):
        from websockets.sync.client import connect

        self.socket = connect(
            f"ws{address.removeprefix('http')}/dream?visitor={visitor}", origin=origin, max_size=None, ping_interval=None
        )
        self.name = self.next("hello")[0]["visitor"]

    def say(self, **order):
        self.socket.send(json.dumps(order))

    def next(self, kind="moment", until=lambda header: True):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            message = self.socket.recv(timeout=60)
            length = int.from_bytes(message[:4], "little")
            header = json.loads(message[4 : 4 + length])
            if header["kind"] == kind and until(header):
                return header, message[4 + length :]
        raise AssertionError(f"no {kind}")


def test_a_dream_is_streamed_driven_stepped_filmed_and_replayed(server):
    visit = Visit(server)
    header, pixels = visit.next()
    assert (len(pixels), len(header["z"])) == (64 * 64 * 3, 4)
    visit.say(do="pause", on=True)
    visit.say(do="start", seed=7)
    assert visit.next(until=lambda h: h["seed"] == 7)[0]["step"] == 0
    visit.say(do="hold", action=[1.0])
    visit.say(do="step")
    assert visit.next(until=lambda h: h["step"] == 1)[0]["action"] == [1.0]
    visit.say(do="agent")
    visit.say(do="step")
    (after, _) = visit.next(until=lambda h: h["step"] == 2 or h["ended"])
    visit.say(do="save")
    recording = json.loads(visit.next("file")[1])
    visit.say(do="film")
    name, film = visit.next("file")
    assert name["name"] == "dream.mp4"
    assert film[4:8] == b"ftyp"
    visit.say(do="replay", recording=recording)
    again = visit.next(until=lambda h: h["watching"] and h["step"] == after["step"])[0]
    assert again["z"] == after["z"]


OPTIONS = ["still", "move left", "move right", "attack"]


def test_the_options_of_a_choice_are_told_by_name_and_taken(choosing):
    with urllib.request.urlopen(f"{choosing}/about", timeout=20) as answer:
        told = json.load(answer)
    assert (told["actions"], told["choices"], told["options"]) == (4, [4], OPTIONS)
    visit = Visit(choosing)
    visit.say(do="pause", on=True)
    latents = []
    for held in ([-1, -1, 1, -1], [-0.5, -1, 0.5, 0], [-1, 1, -1, -1]):  # the first two take the same option
        visit.say(do="start", seed=7)
        visit.next(until=lambda h: (h["seed"], h["step"]) == (7, 0))
        visit.say(do="hold", action=held)
        visit.say(do="step")
        header, _ = visit.next(until=lambda h: h["step"] == 1)
        assert header["action"] == held
        latents.append(header["z"])
    assert latents[0] == latents[1] != latents[2]


def test_a_game_beside_whose_engine_dies_is_told_and_the_dream_goes_on(agent, monkeypatch):
    monkeypatch.setattr(doom, "REPLACEMENTS", 0)
    game, port = DoomConfig().make(), free_port()
    app = make_app(Stage("doom-1", agent, temperature=TAU, rate=30.0, open_game=lambda: game))
    served = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    while not served.started:
        assert thread.is_alive()
        time.sleep(0.05)
    visit = Visit(f"http://127.0.0.1:{port}")
    visit.say(do="pause", on=True)
    visit.say(do="beside", on=True)
    visit.next(until=lambda h: h["beside"])
    doom_engine.kill(game._engines[0])
    visit.say(do="step")
    assert "the dream goes on alone" in visit.next("error")[0]["text"]
    visit.say(do="start", seed=3)
    assert visit.next(until=lambda h: h["seed"] == 3)[0]["beside"] is False
    visit.socket.close()
    served.should_exit = True
    thread.join()


def test_another_action_is_answered_at_once_and_time_runs_no_faster(server):
    visit = Visit(server)
    with closing(visit.socket):
        visit.say(do="rate", value=1)
        visit.say(do="start", seed=7)
        visit.next(until=lambda h: h["seed"] == 7)
        begin, waits = time.monotonic(), []
        for side in (1.0, -1.0) * 3:
            visit.say(do="hold", action=[side])
            said = time.monotonic()
            step = visit.next(until=lambda h, side=side: h["action"] == [side])[0]["step"]
            waits.append(time.monotonic() - said)
            time.sleep(1.1)
        assert np.median(waits) < 0.6, waits  # a step takes a second
        assert step <= time.monotonic() - begin + 2


def test_visitors_do_not_disturb_each_other_and_one_who_comes_back_finds_their_dream(server):
    one, other = Visit(server), Visit(server)
    assert one.name != other.name
    for visit, seed in ((one, 1), (other, 2)):
        visit.say(do="pause", on=True)
        visit.say(do="start", seed=seed)
        visit.say(do="temperature", value=seed)
        visit.next(until=lambda h, seed=seed: h["seed"] == seed and h["temperature"] == seed)
    one.socket.close()
    back = Visit(server, visitor=one.name)
    header = back.next()[0]
    assert (back.name, header["seed"], header["temperature"]) == (one.name, 1, 1.0)


@pytest.mark.parametrize(
    "order",
    [
        "",
        "[]",
        "3",
        "{}",
        '{"do": "fly"}',
        '{"do": "step", "more": 1}',
        '{"do": "hold", "action": [1, 2]}',
        '{"do": "hold", "action": ["x"]}',
        '{"do": "temperature", "value": "NaN"}',
        '{"do": "temperature", "value": 0}',
        '{"do": "latent", "index": 99, "value": 0}',
        '{"do": "replay", "recording": {}}',
        '{"do": "latent", "index": 1e999, "value": 0}',
        '{"do": "latent", "index": -3, "value": 0}',
        '{"do": "replay", "recording": {"seed": 1, "first": [1e300, 0, 0, 0], "actions": [], "changes": {}}}',
        '{"do": "back", "steps": NaN}',
        *(f'{{"do": {order}: {"9" * 400}}}' for order in ('"rate", "value"', '"back", "steps"', '"start", "seed"')),
        *(f'{{"do": {order}: {"9" * 5000}}}' for order in ('"temperature", "value"', '"latent", "value": 0, "index"')),
        '{"do": ["pause"]}',
        b"\x00\xff",
        b"",
        "[" * 5000,
    ],
)
def test_nonsense_is_answered_and_the_dream_goes_on(server, tmp_path_factory, order):
    visit = Visit(server)
    with closing(visit.socket):
        visit.socket.send(order)
        assert 0 < len(visit.next("error")[0]["text"]) < 1000
        visit.say(do="start", seed=5)
        assert visit.next(until=lambda h: h["seed"] == 5)[0]["kind"] == "moment"
    assert "Traceback" not in log_of(tmp_path_factory)


def test_a_refused_order_leaves_a_replay_where_it_is(server):
    visit = Visit(server)
    visit.say(do="pause", on=True)
    visit.say(do="start", seed=3)
    for _ in range(3):
        visit.say(do="step")
    visit.next(until=lambda h: h["seed"] == 3 and (h["step"] == 3 or h["ended"]))
    visit.say(do="save")
    recording = json.loads(visit.next("file")[1])
    visit.say(do="replay", recording=recording)
    visit.say(do="back", steps=100)
    assert visit.next(until=lambda h: h["watching"] and h["paused"])[0]["step"] == 0
    visit.say(do="temperature", value=0)
    visit.next("error")
    visit.say(do="save")
    assert json.loads(visit.next("file")[1]) == recording


LONG = """
import sys, time
from pathlib import Path
from worldmodels.cli.agents import Found
from worldmodels.cli.play import serve
from worldmodels.agent.agent import load_agent
from worldmodels.play import server
server._ORDERS["long"] = lambda *_: time.sleep(50)
serve(Found("one", load_agent(Path(sys.argv[1])), 1.0), port=int(sys.argv[2]), rate=None)
"""


@pytest.mark.slow
def test_an_order_that_takes_longer_than_the_keepalive_is_answered_also_if_others_wait(folder, tmp_path):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with serving([sys.executable, "-c", LONG, str(folder), str(port)], lambda: answers(f"{address}/about"), tmp_path / "log"):
        visit = Visit(address)
        with closing(visit.socket):
            visit.say(do="long")
            for _ in range(20):
                visit.say(do="pause", on=True)
            visit.say(do="start", seed=5)
            time.sleep(10)
            assert visit.next(until=lambda h: h["seed"] == 5)[0]["paused"]


def test_other_hosts_and_other_sites_are_refused(server, tmp_path_factory):
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    request = urllib.request.Request(f"{server}/about", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=20)
    for origin in ("http://evil.example", "http://[", "null", "http://"):
        with pytest.raises((ConnectionClosed, InvalidStatus)) as refused:
            Visit(server, origin=origin)
        assert "500" not in str(refused.value)
    assert "Traceback" not in log_of(tmp_path_factory)


def test_on_a_desktop_the_page_is_opened(folder, tmp_path):
    browser, opened, port = tmp_path / "browser", tmp_path / "opened", free_port()
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part; mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    command = [sys.executable, "-m", "worldmodels.cli.main", "play", str(folder), "--port", str(port)]
    own = os.environ | {"DISPLAY": ":9", "BROWSER": f"{browser} %s"}
    with serving(command, opened.exists, tmp_path / "log", env=own):
        assert opened.read_text().strip() == f"http://127.0.0.1:{port}"


def test_the_port_that_is_taken_is_named(server, folder):
    port = server.rpartition(":")[2]
    command = [sys.executable, "-m", "worldmodels.cli.main", "play", str(folder), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


# In a browser


def ready(page):
    page.wait_for_function("window.dream && window.dream.last && window.dream.last.step >= 0")


def z_of(page):
    return page.evaluate("window.dream.last.z")


def paused_at_start(page, seed):
    page.evaluate("seed => { dream.source.say({do: 'pause', on: true}); dream.source.say({do: 'start', seed}); }", seed)
    page.wait_for_function("seed => dream.last.seed === seed && dream.last.paused && dream.last.step === 0", arg=seed)


def test_a_key_changes_the_dream_and_tabs_are_independent(browser, server):
    with page_at(browser, server) as page, page_at(browser, server) as other:
        for each in (page, other):
            ready(each)
            paused_at_start(each, 11)
        assert page.inner_text("#help").endswith("Stay alive: drive with the arrow keys.")
        page.keyboard.down("ArrowRight")
        page.wait_for_function("dream.last.driven")
        other.keyboard.press("m")
        other.wait_for_function("dream.last.driven")
        page.keyboard.press(".")
        other.keyboard.press(".")
        for each in (page, other):
            each.wait_for_function("dream.last.step === 1")
        assert page.evaluate("dream.last.action") == [1]
        assert other.evaluate("dream.last.action") == [0]
        assert z_of(page) != z_of(other)
        page.keyboard.up("ArrowRight")


def test_the_keys_and_the_buttons_of_a_choice_take_its_options(browser, choosing):
    with page_at(browser, choosing) as page:
        ready(page)
        paused_at_start(page, 11)
        pads = page.locator("#pads button")
        assert pads.all_text_contents() == [f"{number} {name}" for number, name in enumerate(OPTIONS, 1)]

        def taken(step):
            page.keyboard.press(".")
            page.wait_for_function("step => dream.last.step === step", arg=step)
            return page.evaluate("dream.last.action")

        for number in (1, 3, 4):
            page.keyboard.down(str(number))
            page.wait_for_function("dream.last.driven")
            assert pads.nth(number - 1).get_attribute("class") == "held"
            page.keyboard.press(",")
            page.wait_for_function("dream.last.step === 0")
            assert taken(1) == [1 if each == number else -1 for each in range(1, 5)]
            page.keyboard.up(str(number))
        page.keyboard.press(",")
        page.wait_for_function("dream.last.step === 0")
        pads.nth(1).hover()
        page.mouse.down()
        assert taken(1) == [-1, 1, -1, -1]
        page.mouse.up()
        assert taken(2) == [-1, -1, -1, -1]  # of equal ones the first: still


def test_the_sliders_change_spread_and_latents(browser, server):
    with page_at(browser, server) as page:
        ready(page)
        spreads = []
        for position in ("-2", "1"):
            paused_at_start(page, 3)
            page.locator("#temperature").fill(position)
            page.wait_for_function("value => Math.abs(Math.log(dream.last.temperature) - value) < 0.02", arg=float(position))
            latents = []
            for step in range(1, 7):
                page.click("#step")
                page.wait_for_function("step => dream.last.step === step || dream.last.ended", arg=step)
                latents.append(z_of(page))
            spreads.append(np.std(latents, 0).mean())
        assert spreads[1] > 1.3 * spreads[0]
        page.click("summary >> nth=1")
        slider = page.locator("#latents input").first
        slider.fill(slider.get_attribute("max"))
        index = int(slider.get_attribute("aria-label").split()[1])
        wanted = float(slider.get_attribute("max"))
        page.wait_for_function("([i, v]) => Math.abs(dream.last.z[i] - v) < 0.02", arg=[index, wanted])


def test_a_socket_that_is_killed_comes_back_to_the_same_dream(browser, server):
    with page_at(browser, server) as page:
        ready(page)
        paused_at_start(page, 21)
        page.evaluate("window.before = dream.last; dream.source.lose()")
        page.wait_for_function("dream.last !== window.before")
        assert page.evaluate("dream.last.seed") == 21


@pytest.mark.parametrize("size", [(1366, 650), (390, 844)], ids=["laptop", "phone"])
def test_pictures_and_controls_fit_one_screen_also_with_the_game_beside(browser, server, size):
    with page_at(browser, server, viewport=dict(zip(("width", "height"), size, strict=True))) as page:
        ready(page)
        for beside in (False, True):
            if beside:
                page.click("#besidebutton")
                page.wait_for_function("!document.getElementById('beside').hidden")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            last = "#traces" if size[0] < 600 else ".panel"  # on a phone what is folded comes below
            assert page.evaluate("last => document.querySelector(last).getBoundingClientRect().bottom <= innerHeight", last)


PICTURES = """async () => {
  const own = CanvasRenderingContext2D.prototype.putImageData, step = dream.last.step;
  let pictures = 0;
  CanvasRenderingContext2D.prototype.putImageData = function (...all) {
    pictures += this.canvas.id === "dream";
    return own.apply(this, all);
  };
  await new Promise((go) => setTimeout(go, 4000));
  CanvasRenderingContext2D.prototype.putImageData = own;
  return [pictures, dream.last.step - step];
}"""
KEY = """async ([key, side]) => {
  const press = (kind) => document.body.dispatchEvent(new KeyboardEvent(kind, { key, bubbles: true }));
  const at = dream.last.step;
  while (dream.last.step === at) await new Promise(requestAnimationFrame); // the next step is a second away
  const begin = performance.now();
  press("keydown");
  while (!dream.last.action || dream.last.action[0] !== side) await new Promise(requestAnimationFrame);
  press("keyup");
  await new Promise((go) => setTimeout(go, 2200)); // what came before its time is over, the key that was let go too
  return performance.now() - begin - 2200;
}"""


@pytest.mark.parametrize("place", ["server", "site"])
def test_few_steps_a_second_fade_into_many_pictures_and_a_key_is_answered_at_once(browser, request, place):
    with page_at(browser, request.getfixturevalue(place)) as page:
        ready(page)
        page.evaluate("dream.source.say({do: 'rate', value: 4}); dream.source.say({do: 'start', seed: 11})")
        page.wait_for_function("dream.last.seed === 11 && dream.last.step >= 2")
        pictures, steps = page.evaluate(PICTURES)
        assert pictures > 1.3 * steps > 2
        page.evaluate("dream.source.say({do: 'rate', value: 1})")
        waits = [page.evaluate(KEY, [key, side]) for key, side in (("ArrowRight", 1), ("ArrowLeft", -1)) * 2]
        print(f"{place}: {pictures} pictures of {steps} steps in 4 s; a key is answered in {np.median(waits):.0f} ms")
        assert np.median(waits) < 700, waits  # a step takes a second


@pytest.fixture(scope="module")
def site(agent, tmp_path_factory):
    pytest.importorskip("onnxscript", reason="the extra `web` is not installed")
    if shutil.which("npm") is None and "WM_ONNXRUNTIME_WEB" not in os.environ:
        pytest.skip("npm is not installed, which fetches onnxruntime-web")
    from worldmodels.play.export import browser_runtime, export_web

    for _ in range(2):  # the registry does not always answer; what is fetched is kept
        with suppress(WorldModelsError):
            browser_runtime()
    place = tmp_path_factory.mktemp("site")
    export_web(place, agent, name="doom-1", temperature=1.0, rate=60)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=place)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@torch.inference_mode()
def test_the_exported_page_plays_and_computes_what_torch_computes(browser, site, agent):
    with page_at(browser, site) as page:
        ready(page)
        page.evaluate("dream.source.say({do: 'rate', value: 120})")  # and it plays
        page.wait_for_function("dream.last.step >= 100")
        page.evaluate("dream.source.say({do: 'pause', on: true})")
        page.wait_for_function("dream.last.paused")
        random = np.random.default_rng(0)
        memory, error = agent.memory, 0.0
        z, state = torch.from_numpy(random.normal(size=(1, 4)).astype(np.float32)), agent.initial_state(1)
        for step in range(20):
            normal, uniform = random.normal(size=4).astype(np.float32), random.uniform(size=4).astype(np.float32)
            found = page.evaluate(
                """async ([step, z, state, normal, uniform]) => {
                    const f = (x) => Float32Array.from(x), before = { step, z: f(z), state: f(state) };
                    const action = Array.from(await dream.source.agent(before));
                    const after = await dream.source.predict(before, action, { normal: f(normal), uniform: f(uniform) }, 1.3);
                    const rest = Object.fromEntries(Object.entries(after).map(([k, v]) => [k, v.length ? Array.from(v) : v]));
                    return { action, ...rest, frame: Array.from(await dream.source.decode(f(z))) };
                }""",
                [step, z[0].tolist(), state[0].tolist(), normal.tolist(), uniform.tolist()],
            )
            frame = agent.vision.decode(z)[0].permute(1, 2, 0).mul(255).round().flatten().numpy()
            assert np.abs(np.array(found["frame"]) - frame).max() <= 1
            seen = select_features("zch", z, memory, state)
            action = torch.tanh(seen @ agent.parameters[:, None])
            prediction, _, state = memory(z[:, None], action[:, None], torch.tensor([[step == 0]]), state)
            latent = type(prediction.latent)(*(part[:, 0] for part in prediction.latent))
            z = latent.sample(torch.from_numpy(uniform)[None], torch.from_numpy(normal)[None], 1.3)
            pairs = [("action", action), ("z", z), ("state", state), ("hazard", memory.hazard(prediction.done))]
            pairs += [("spread", latent.mean_and_std()[1].mean())]
            error = max(error, *(float(np.abs(np.ravel(found[name]) - value.numpy().ravel()).max()) for name, value in pairs))
        print(f"largest difference between the page and torch over 20 steps: {error:.1e}")
        assert error < 1e-4


def test_the_runtime_is_fetched_only_as_it_is_known(tmp_path, monkeypatch):
    from worldmodels.play import export

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("WM_ONNXRUNTIME_WEB", raising=False)
    monkeypatch.setattr(export.shutil, "which", lambda name: None)
    with pytest.raises(WorldModelsError, match="npm is not installed"):
        export.browser_runtime()
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\nfor last; do :; done\necho another > "$last/package.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setattr(export.shutil, "which", lambda name: str(npm))
    with pytest.raises(WorldModelsError, match="SHA-512 differs"):
        export.browser_runtime()
    monkeypatch.setenv("WM_ONNXRUNTIME_WEB", str(tmp_path))
    with pytest.raises(WorldModelsError, match="does not hold"):
        export.browser_runtime()
