"""`python -m localllama`: the command line, also where its script is not on PATH."""

from localllama.cli import main

if __name__ == "__main__":
    main()
