"""The argument, put to the test: six claims about world models, each a study with a fair rival, a figure and a table."""
