"""`ds01ctl`: the group. Each command is a module, loaded when it is called."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

from ds01d.cli.base.command import ERROR, ExitCodeGroup, common_options

# Each command: its module, and its line in --help without loading it.
COMMANDS = {
    "status": ("ctl.status", "Show slots, holders, sources and the state of the daemon."),
    "plan": ("ctl.plan", "Show what a pass would do now; change nothing."),
    "explain": ("ctl.explain", "Explain the verdict on a container or a slot."),
    "reconcile": ("ctl.plan", "Make a full pass now, with or without the daemon."),
    "quota": ("ctl.quota", "Show what a user may have, has, and has left."),
    "me": ("ctl.me", "Show what you hold, what ends when, your quota, and what is free."),
    "report": ("ctl.usage_report", "Show GPU hours: booked, used, idle, retained."),
    "history": ("ctl.history", "Show the changes of the books."),
    "undo": ("ctl.undo", "Undo a change of the books."),
    "log": ("ctl.log", "Show the operations log of containers."),
    "cuda": ("ctl.cuda", "Show which CUDA or ROCm containers of this host can use, and why."),
    "container": ("containers.main", "Create, list, enter, stop and remove containers."),
    "catalogue": ("ctl.catalogue", "Check the images that containers are created from."),
    "allocate": ("ctl.allocate", "Book a slot for a container."),
    "release": ("ctl.allocate", "Release the slots of a container."),
    "withdraw": ("ctl.withdraw", "End requests for a notice of free slots."),
    "freeze": ("ctl.freeze", "Stop repairs of everything, or of one container or slot."),
    "thaw": ("ctl.freeze", "End a freeze, or trust the Docker engine in use now."),
    "web": ("ctl.web", "Serve the web page in the foreground."),
    "fleet": ("ctl.fleet", "Show what all hosts of the configuration have."),
    "doctor": ("doctor.main", "Check whether this host can run ds01d, with fixes."),
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
    """Inspect and repair the books of the GPU allocator.

    Exit codes: 0 success, 1 an error, 2 drift, 3 a booking was refused, 130 interrupted; others in
    the help of the command.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return ERROR
    return 0


if __name__ == "__main__":
    main()
