"""Saliency without masks: hints from CAMs, C²AM, PoolNet and their maps."""
