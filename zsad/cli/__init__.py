"""The command line: one module per verb, errors of one line, torch only where a verb needs it."""
