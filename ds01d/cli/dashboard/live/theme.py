"""How tones look in the live view, and a theme of the terminal's own colours."""

from __future__ import annotations

from rich.style import Style
from textual.theme import Theme

from ds01d.cli.output.blocks import Tone

# Decision 276: on the background of the terminal itself, whether that is dark or light.
TERMINAL_THEME = Theme(
    name="terminal",
    primary="ansi_blue",
    secondary="ansi_cyan",
    warning="ansi_magenta",
    error="ansi_red",
    success="ansi_green",
    accent="ansi_blue",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    variables={
        "footer-key-foreground": "ansi_blue",
        "input-cursor-text-style": "reverse",
        "scrollbar": "ansi_blue",
    },
)
SELECTED = Style(reverse=True)
# Yellow, as commands have it, cannot be read on the light background of many terminals. Each colour
# comes with a word or a sign, so nothing is lost without any.
_STYLES = {
    Tone.PLAIN: Style(),
    Tone.STRONG: Style(bold=True),
    Tone.GOOD: Style(color="green"),
    Tone.WARN: Style(color="magenta", bold=True),
    Tone.BAD: Style(color="red", bold=True),
    Tone.FAINT: Style(dim=True),
}


def tone_style(tone: Tone) -> Style:
    """How a tone looks in the live view."""
    return _STYLES[tone]
