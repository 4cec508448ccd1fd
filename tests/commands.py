"""What the tests of the command line share."""

from collections.abc import Callable

#: The command, by its words: status, standard output, standard error.
Run = Callable[..., tuple[int, str, str]]

#: Options of a training that takes no time.
SMALL = ("--network.hidden_dims", "[8]", "--latent_dim", "2", "--particles", "10")
