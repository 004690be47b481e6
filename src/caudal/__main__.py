"""`python -m caudal`: the command."""

from caudal.cli.entry import main

main()
