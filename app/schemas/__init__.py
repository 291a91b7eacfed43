"""Wire shapes: what requests and answers look like, as msgspec structs. No behaviour."""
