"""What experiments on a grafted video transformer need: its data, its backbone, its probes."""
