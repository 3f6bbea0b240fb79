"""Studies: one file, one study, one claim. Nobody imports this package statically; entry points find it."""
