"""The MLX engine. Import it lazily: it brings in mlx."""
