"""The commands of the command line, one module each; must never be imported by the gateway."""
