"""`python -m tandemrec`, for launchers that start modules."""

from tandemrec.cli import main

main()
