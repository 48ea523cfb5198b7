"""``python -m slimline``: what the command ``slimline`` does, for launchers that start modules."""

from slimline.cli import main

main()
