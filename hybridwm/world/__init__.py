"""The world model: one step made of engine, residual and events, and what it is made of."""
