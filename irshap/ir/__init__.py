"""The IR: types, values, nodes, ops and graphs, what builds them and what walks over them."""
