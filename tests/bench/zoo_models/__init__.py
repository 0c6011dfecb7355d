"""The zoo: architectures as they are exported, and what irshap makes of them."""
