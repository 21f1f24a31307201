"""Trained models: what a finished trial is good for."""
