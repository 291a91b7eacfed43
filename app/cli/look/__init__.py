"""Commands about models: what there is, what is in memory, fetching and removing."""
