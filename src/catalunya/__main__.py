"""`python -m catalunya`: the command."""

from catalunya.cli.main import main

main()
