"""``wm record``: play a game of params.yaml, and keep what was seen and done as a recording."""

from contextlib import closing
from pathlib import Path

from worldmodels.cli.agents import environments_of, find_agent
from worldmodels.cli.folder import nearest
from worldmodels.errors import ParamsError
from worldmodels.games.base import GameConfig
from worldmodels.params import PARAMS_FILE, load_yaml, section
from worldmodels.storage.layout import RECORDED

RANDOM, BY_HAND = "random", "hand"


def game_of(root: Path, name: str) -> GameConfig:
    """Return the game of an environment of params.yaml.

    Raises:
        ParamsError: there is no such environment, or its game is wrong.
    """
    from worldmodels.games.make import Game

    data = load_yaml(root / PARAMS_FILE)
    known = environments_of(data)
    if name not in known:
        raise ParamsError(f"there is no environment `{name}`.{nearest(name, known)}")
    game: GameConfig = section(data, f"{name}.game", Game)
    return game


def record_play(root: Path, name: str, folder: Path, *, player: str, episodes: int, strength: float) -> str:
    """Play episodes of a game and add them to a recording; return what to do with it.

    Args:
        root: the project's folder.
        name: the environment.
        folder: the recording.
        player: ``random``, or an agent.
        episodes: how many.
        strength: by how much of the random policy's an agent's actions are disturbed.

    Raises:
        ParamsError: there is no such game or agent, the agent is of another game, or the folder holds other play.
    """
    import torch
    from tqdm import tqdm

    from worldmodels.compute.cores import cores
    from worldmodels.recordings.writing import RecordingWriter, record
    from worldmodels.rollout.bare import BareWorld
    from worldmodels.rollout.policies import ExploringPolicy, Policy, RandomPolicy
    from worldmodels.rollout.world import World

    torch.set_num_threads(1)
    game, agent = game_of(root, name), None
    if player != RANDOM:
        from worldmodels.agent.agent import load_agent

        agent = load_agent(find_agent(root, player)[1])
        if agent.game.rules != game.rules or agent.game.frame_skip != game.frame_skip:
            raise ParamsError(
                f"{player} plays {agent.game.rules} with frame_skip {agent.game.frame_skip}; {name} is {game.rules} with "
                f"{game.frame_skip}."
            )
    random = RandomPolicy(game.random)
    who = player if agent is None or not strength else f"{player}, strength {strength:g}"
    writer = RecordingWriter(folder, game, who)
    env = game.make(threads=cores())
    world: World = BareWorld(env) if agent is None else agent.real_world(env)
    policy: Policy = random if agent is None else ExploringPolicy(agent.policy(), random, [strength])
    with closing(world), tqdm(total=episodes, desc=f"{name}, {who}", unit="episode", leave=False, disable=None) as bar:
        record(world, policy, episodes, writer, game.choices, bar.update)
    return how_to_learn(root, name, folder, game)


def record_by_hand(root: Path, name: str, folder: Path, *, port: int, rate: float | None) -> str:
    """Let a person play a game on a page of this machine until Ctrl-C, and keep the episodes; return what to do with them.

    Raises:
        ParamsError: there is no such game, or the folder holds other play.
        WorldModelsError: the port is taken.
    """
    from worldmodels.cli.play import listen
    from worldmodels.play.hand import Hand, make_hand_app
    from worldmodels.recordings.writing import RecordingWriter, arrays_of
    from worldmodels.shapes import Episode

    game = game_of(root, name)
    writer = RecordingWriter(folder, game, BY_HAND)

    def keep(episode: Episode) -> None:
        writer.write(next(writer.numbers()), arrays_of(episode, game.choices))

    with closing(game.make()) as env:
        hand = Hand(game, env, lambda: writer.seed(next(writer.numbers())), keep)
        listen(make_hand_app(name, game, hand, rate or game.frames_a_second), port=port, name=f"{name}, played by hand")
    return how_to_learn(root, name, folder, game) if hand.kept else f"{folder}: no episode was played to its end."


def import_play(root: Path, name: str, source: str, folder: Path, *, picture: str, episodes: int | None) -> str:
    """Add episodes of a Minari data set to a recording, as frames of a game; return what to do with it.

    Args:
        root: the project's folder.
        name: the environment whose game it is.
        source: the data set.
        folder: the recording.
        picture: key of the picture in its observations, if there are several.
        episodes: the first so many; None: all.

    Raises:
        ParamsError: there is no such game, it does not fit the data set, or the folder holds other play.
        ArtifactError: the data set cannot be read.
    """
    from itertools import islice

    from tqdm import tqdm

    from worldmodels.recordings.episodes import Recording, frames_of
    from worldmodels.recordings.minari import MinariData
    from worldmodels.recordings.writing import RecordingWriter

    game = game_of(root, name)
    if game.frame_skip > 1:
        raise ParamsError(
            f"`{name}.game.frame_skip` is {game.frame_skip}: a data set has every step of its game, so set it to 1."
        )
    data, writer = MinariData(source, picture), RecordingWriter(folder, game, source)
    count = min(len(data), episodes or len(data))
    for number, arrays in enumerate(tqdm(islice(data.episodes(), count), desc=name, total=count, leave=False, disable=None)):
        writer.write(number, arrays | {"frames": frames_of(arrays["frames"], game)})
        if not number:
            Recording(folder, game)  # what is wrong with the first is wrong with all
    return how_to_learn(root, name, folder, game)


def how_to_learn(root: Path, name: str, folder: Path, game: GameConfig) -> str:
    """Return what a recording holds, and the lines of params.yaml with which a world model learns from it."""
    from worldmodels.cli.recordings import summary
    from worldmodels.recordings.episodes import Recording

    key, place, top = f"{name}{RECORDED}", folder.resolve(), root.resolve()
    place = place.relative_to(top) if place.is_relative_to(top) else place
    return "\n".join(
        [
            summary(str(folder), Recording(folder, game).contents),
            f"To learn from it, in {PARAMS_FILE}:",
            f"  recordings: {{ {key}: {{ env: {name}, folder: {place.as_posix()} }} }}",
            f"  world_models: {{ {name}-1: {{ env: {name}, after: {key}, player: {name}-0, explorer: {name}-0 }} }}",
            f"and {name}.collect.first_episodes: 0, if {name}-1 is to learn from the recording alone.",
        ]
    )
