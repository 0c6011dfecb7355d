"""The passes, one a file; `irshap.compiler.catalog` imports, and so registers, all of them."""
