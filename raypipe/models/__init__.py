"""Backbones: what each family looks like inside (`families`), and how one is loaded safely (`loading`)."""
