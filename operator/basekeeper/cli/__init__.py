"""The command line: parse, call, render. A command per module; no rule that a pass has not."""
