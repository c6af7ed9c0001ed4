"""How well predictions match labels, how sure that is, and whether relevance finds the words that decide."""
