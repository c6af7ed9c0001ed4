"""`raypipe tune`: search settings on dev notes, one study per model; and its report (`raypipe tune-report`)."""
