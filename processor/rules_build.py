"""Whether the rules run as machine code, as in a wheel that `make wheel` built, or as sources."""

from processor.rules import engine


def rules_build() -> str:
    return "interpreted" if engine.__file__.endswith(".py") else "compiled"
