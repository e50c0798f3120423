"""tandemrec: recommenders in which a language model and conventional models ride in tandem."""

__version__ = "0.1.0"
