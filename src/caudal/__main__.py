"""`python -m caudal`: the command."""

from caudal.cli.start import main

main()
