"""The record of every call: journal, shipper, ledger store and its queries."""
