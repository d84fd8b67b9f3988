"""One look for every picture: the same colour for the same world, wherever it is drawn."""

# Blue and orange stay apart for readers who see few colours; grey is the baseline.
WORLD_COLOURS = {"real": "#1F6FA8", "dream": "#D9801E", "random": "#8A929B"}
BLIND_COLOUR = "#2E8B6F"
PAPER_COLOUR = "#7A3E9D"
TRAIN_COLOUR = "#9DB4C6"
VALIDATION_COLOUR = "#1F6FA8"
SERIES = ("#1F6FA8", "#D9801E", "#8A929B", "#2E8B6F", "#7A3E9D", "#B5495B")
"""Colours of lines that stand for no world."""
INK = "#1C2430"
FAINT_INK = "#6B7480"
GRID = "#E4E8EC"
PAPER_WHITE = "#FFFFFF"


def rgb(colour: str) -> tuple[int, int, int]:
    """Return ``#RRGGBB`` as three numbers in 0..255.

    >>> rgb("#1F6FA8")
    (31, 111, 168)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def lighter(colour: str, share: float) -> str:
    """Return a colour with a share of white mixed in, 0 for none.

    >>> lighter("#1F6FA8", 0.5)
    '#8FB7D4'
    """
    return "#" + "".join(f"{round(part + share * (255 - part)):02X}" for part in rgb(colour))
