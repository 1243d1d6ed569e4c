"""Yunque: train language models on the machine you have, and know whether it worked."""

__version__ = "0.1.0"
