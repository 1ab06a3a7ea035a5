"""Everything around the gateway on one machine: files for Docker, and ``make stack``."""
