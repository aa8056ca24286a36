"""The audit: numbers that were published against each other, and our own tables by the same measure.

Each check is a formula over values that are read, with the numbers and what follows from them. A number that
is not there is never guessed: the check says what it lacks.
"""
