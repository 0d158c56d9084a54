"""`ds01ctl`: the group. Each command is a module, loaded when it is called."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

from ds01d.cli.base.command import ERROR, ExitCodeGroup, common_options

# Each command: its module, and what --help says of it in a line without loading it.
COMMANDS = {
    "status": ("ctl.status", "Show slots, holders, sources and what the daemon says."),
    "plan": ("ctl.plan", "Show what a pass would do now; change nothing."),
    "explain": ("ctl.explain", "Tell all that is known of a container or a slot."),
    "reconcile": ("ctl.plan", "Make a full pass now, with or without the daemon."),
    "history": ("ctl.history", "Show what was done to the books."),
    "undo": ("ctl.undo", "Take back what was done to the books."),
    "log": ("ctl.log", "Show what was tried with containers: the operations log."),
    "cuda": ("ctl.cuda", "Tell what CUDA or ROCm containers of this host can use, and why."),
    "container": ("containers.main", "Create, list, start, stop and remove containers."),
    "allocate": ("ctl.allocate", "Book a slot for a container."),
    "release": ("ctl.allocate", "Give back the slots that a container holds."),
    "freeze": ("ctl.freeze", "Let nothing be repaired for a while: all, or one container or slot."),
    "thaw": ("ctl.freeze", "End a freeze, or trust the engine that answers now."),
    "doctor": ("doctor.main", "Check whether this host can run ds01d; name the mend."),
}


class _Commands(ExitCodeGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"ds01d.cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, without loading them, then the options."""
        items = [
            CompletionItem(c, help=t) for c, (_, t) in COMMANDS.items() if c.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


@click.group(
    "ds01ctl",
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@common_options
@click.pass_context
def main(context: click.Context) -> int:
    """Look at the books of the GPU allocator, and mend them.

    Exit codes: 0 all is well, 2 there is drift, 1 an error, 130 interrupted.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return ERROR
    return 0


if __name__ == "__main__":
    main()
