"""Where notes and labels come from."""
