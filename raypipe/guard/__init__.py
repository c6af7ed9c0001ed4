"""What keeps protected notes where they belong: errors without text, private files, no connection, plain characters."""
