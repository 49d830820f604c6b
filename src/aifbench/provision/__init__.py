"""Images and models: made or fetched once, before any batch needs them."""
