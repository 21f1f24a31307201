"""Trained models on their way out of a sweep: exported, asked about images, and trained again as a proof."""
