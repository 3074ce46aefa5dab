"""The command ``wsss``: what people type to look at runs, ask them and use their networks, outside the workflow."""
