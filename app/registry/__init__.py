"""Which models exist, which are resident, and who uses them."""
