"""The text format of graphs: `print_graph` writes it and `parse_graph` reads it back."""

from irshap.text.parser import parse_graph
from irshap.text.printer import Printer, print_graph, print_op

__all__ = ["Printer", "parse_graph", "print_graph", "print_op"]
