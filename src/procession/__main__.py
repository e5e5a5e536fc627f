"""`python -m procession` is the command."""

from procession._cli.app import main

if __name__ == "__main__":
    main()
