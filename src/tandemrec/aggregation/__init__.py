"""Systems made of several systems' answers."""
