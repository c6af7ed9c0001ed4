"""Metrics -> tables, figures and one HTML file."""
