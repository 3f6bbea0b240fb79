"""Three worlds that the engine does not know, and what models make of them."""
