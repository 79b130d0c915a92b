"""Write cli.md: what `--help` tells of each command. `make docs` runs it; a test fails when it is stale."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import typer
from typer.main import get_command

from cetpick.cli import app

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
<!-- Made by docs/cli.py from the commands; `make docs` makes it anew. -->
# Commands

What `cetpick COMMAND --help` tells. `cetpick-relion`, an External job of RELION, has [a page of its own](relion.md).

"""


def reference() -> str:
    """The page, in Markdown."""
    group = get_command(app)
    context = typer.Context(group, info_name="cetpick")
    page = f"{HEAD}{group.help} {group.epilog}\n"
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = typer.Context(command, info_name=name, parent=context)
        text, _, examples = command.help.partition("Examples:\n")
        lines = "\n".join(line for line in dedent(examples).splitlines() if line)
        page += f"\n## {name}\n\n{text.strip()}\n\n```\n{lines}\n```\n\n"
        for parameter in command.get_params(inner):
            if parameter.name != "help" and (record := parameter.get_help_record(inner)):
                page += "- `{}`: {}\n".format(*record)
    return page


if __name__ == "__main__":
    PAGE.write_text(reference())
