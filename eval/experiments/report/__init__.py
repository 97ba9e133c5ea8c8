"""The report card of the experiments: one page, Markdown, JSON."""
