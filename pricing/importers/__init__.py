"""Price lists of others, read as data: candidates, checks, differences and the published catalog.

Must never import the packages whose lists it reads, and never change a published version.
"""
