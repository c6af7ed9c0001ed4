"""`raypipe tune`: search settings on dev notes, one study per model; and what a study found (`raypipe tune-report`)."""
