"""How it is asked: the command line. Typer lives only here; one thin command a file."""
