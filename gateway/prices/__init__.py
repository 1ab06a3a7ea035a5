"""The price book of a running installation: its versions, what changes them, which one holds."""
