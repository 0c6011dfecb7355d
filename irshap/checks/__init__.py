"""Does a graph keep the IR's promises, and did a pass keep its own?"""
