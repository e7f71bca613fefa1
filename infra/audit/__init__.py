"""An independent auditor of an environment: reads what was written and derives it all again.

It shares no code with the dataflows beyond `schemas`: plain loops over dictionaries and decimals,
written to be read rather than to be fast, so that one mistake is not made twice.
"""
