"""Marking: is the final answer of a reply the right one? Pure functions over text, no model.

A reply is marked right only where it states one answer and that answer is the key; what can be
read in two ways is wrong.
"""
