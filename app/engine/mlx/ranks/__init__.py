"""A model that lies on several ranks: one decides, the others repeat what it does."""
