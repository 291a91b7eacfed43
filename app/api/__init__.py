"""HTTP: the only room, with ``main``, that knows Litestar."""
