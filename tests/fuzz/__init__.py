"""Whatever bytes come from a broker, nothing but the connection ends.

``python -m tests.fuzz --inputs 10000000 [--target NAME] [--jobs 2] [--first K]`` runs many inputs, each of
which is made from its number; ``python -m tests.fuzz --input NAME NUMBER`` runs one of them again;
``python -m tests.fuzz --atheris NAME SECONDS`` has atheris look for inputs that reach more of the code.
"""
