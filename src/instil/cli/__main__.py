"""``python -m instil.cli``, where the command is not on the path."""

from instil.cli import main

main()
