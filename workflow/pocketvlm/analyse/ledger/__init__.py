"""The ledger: each published value beside ours, others' measurements and the physical bound."""

from pocketvlm.analyse.ledger.table import COLUMNS, write_ledger

__all__ = ["COLUMNS", "write_ledger"]
