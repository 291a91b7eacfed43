"""What models have computed of prompts, as files: it is found again after an eviction and after a restart."""
