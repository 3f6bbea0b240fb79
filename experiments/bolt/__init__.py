"""A driver turns bolts: reach the asked clamp force from what the sensors tell, and strip nothing."""
